import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from gmmcli.errors import MissingPartError
from gmmcli.metrics.features.inception import FILE, SHA256, Inception, default_weights, load_inception
from gmmcli.vision import torchvision


class Weights(NamedTuple):
    """A weights file as pytorch-fid's, of random numbers."""

    path: Path
    sha256: str
    whole: nn.Module
    """The network with its last layer."""


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weights]:
    torchvision("models")
    from pytorch_fid import inception

    with patch.object(inception, "load_state_dict_from_url", lambda *_, **__: {}), patch.object(nn.Module, "load_state_dict"):
        whole = inception.fid_inception_v3().eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in whole.parameters():
        if parameter.dim() == 4:  # the default would fade out over so many layers
            nn.init.kaiming_normal_(parameter, generator=generator)
    nn.init.normal_(whole.fc.weight, std=0.01, generator=generator)
    nn.init.normal_(whole.fc.bias, std=3, generator=generator)
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(whole.state_dict(), path)
    yield Weights(path, sha256_of(path), whole)
    path.unlink()  # pytest keeps folders of earlier sessions, and this is a hundred megabytes


@pytest.fixture(scope="module")
def network(weights: Weights) -> Inception:
    return load_inception(weights.path, weights.sha256)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randint(0, 256, (3, 3, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.fixture(scope="module")
def features(network: Inception, images: Tensor) -> Tensor:
    """Taken in pieces of two and of one."""
    seen: list[int] = []
    hook = network.network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    with patch("gmmcli.metrics.features.inception.batch_size", return_value=2):
        features = network.features(images)
    hook.remove()
    assert seen == [2, 1]
    return features


def test_features_are_those_that_pytorch_fid_takes_from_pictures_in_colour_and_grey(
    weights: Weights, network: Inception, features: Tensor, images: Tensor, tmp_path: Path
) -> None:
    from pytorch_fid import fid_score, inception

    with patch.object(inception, "load_state_dict_from_url", lambda *_, **__: weights.whole.state_dict()):
        oracle = inception.InceptionV3()
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path, pixels in zip(paths, [*images.permute(0, 2, 3, 1), images[0, 0]], strict=True):
        Image.fromarray(pixels.numpy()).save(path)
    expected = fid_score.get_activations(paths, oracle, batch_size=4, num_workers=0)
    size = np.abs(expected).mean()
    assert size > 0.01
    assert all(np.abs(expected[i] - expected[j]).mean() > 0.01 * size for i in range(4) for j in range(i))
    found = torch.cat([features, network.features(images[:1, :1])])
    assert found.shape == (4, 2048)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * size)


def test_class_probabilities_are_the_last_layers_without_its_bias(network: Inception, weights: Weights, features: Tensor) -> None:
    with torch.no_grad():
        expected = torch.softmax(weights.whole.fc(features) - weights.whole.fc.bias, 1)
    probs = network.class_probs(features)
    assert probs.shape == (3, 1008)
    torch.testing.assert_close(probs, expected, rtol=1e-3, atol=1e-7)
    with torch.no_grad():
        assert not torch.allclose(probs, torch.softmax(weights.whole.fc(features), 1), rtol=0.1)


def test_the_network_is_fixed(network: Inception, weights: Weights, features: Tensor) -> None:
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not features.requires_grad
    assert network.sha256 == weights.sha256


def refused(path: Path | None, **options: Any) -> MissingPartError:
    with pytest.raises(MissingPartError) as caught:
        load_inception(path, **options)
    assert caught.value.exit_code == 4
    return caught.value


def test_without_the_file_it_is_said_which_how_large_and_where_from(tmp_path: Path) -> None:
    error = refused(tmp_path / "absent.pth")
    assert str(tmp_path / "absent.pth") in error.message
    assert all(word in error.hint for word in (FILE, "95,628,359 bytes", "mseitzer/pytorch-fid", "--weights", "--features pixels"))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert str(tmp_path) in refused(tmp_path).message


def test_the_default_is_where_torchs_hub_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert default_weights() == tmp_path / "hub" / "checkpoints" / FILE
    assert str(default_weights()) in refused(None).message


def test_another_file_is_refused_before_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / FILE
    path.write_bytes(b"something else")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was opened"))
    error = refused(path)
    assert all(word in error.message for word in (str(path), sha256_of(path), SHA256))
    assert "mseitzer/pytorch-fid" in error.hint


def test_one_changed_byte_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"fc.weight": torch.zeros(3)}, path)
    content, expected = bytearray(path.read_bytes()), sha256_of(path)
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert expected in refused(path, sha256=expected).message


def test_objects_other_than_tensors_are_not_built_even_where_the_hash_is_right(tmp_path: Path) -> None:
    path = tmp_path / "objects.pth"
    torch.save({"fc.weight": Path("x")}, path)
    with pytest.raises(Exception, match="Weights only load failed"):
        load_inception(path, sha256_of(path))


def test_the_file_is_the_one_of_pytorch_fid() -> None:
    torchvision("models")
    from pytorch_fid.inception import FID_WEIGHTS_URL

    assert FID_WEIGHTS_URL.rpartition("/")[2] == FILE
    assert SHA256.startswith(Path(FILE).stem.rpartition("-")[2])
    assert len(SHA256) == 64
