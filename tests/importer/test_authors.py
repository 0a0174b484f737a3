"""The authors' files under our names: logits, means and buffers are theirs."""

from pathlib import Path

import pytest
import torch
from checkpoints import FORMS, GMMC, JEM, Form, known_as, margin, replay_buffer, save, save_gmmc, settle, simplex

from gmmcli.core.classifier import Classifier
from gmmcli.core.heads import LDA, Linear, MaxMahalanobis
from gmmcli.errors import CheckpointError
from gmmcli.importer.authors import Imported, read
from gmmcli.importer.torch_file import opened


def imported(path: Path) -> Imported:
    with opened(path) as file:
        return read(file)


def classifier(found: Imported) -> Classifier:
    """Our model with the weights that were read, every one of them."""
    model = found.model.build(found.n_classes, 3)
    model.load_state_dict(found.weights)
    return model.eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("depth", "width", "batch"), [(10, 2, False), (16, 1, True), (22, 1, False)])
def test_the_logits_of_a_gmmc_are_those_of_its_own_network(
    tmp_path: Path, images: torch.Tensor, form: Form, depth: int, width: int, batch: bool
) -> None:
    theirs = settle(GMMC(depth, width, batch))
    centers = simplex(dim=64 * width)
    found = imported(save_gmmc(tmp_path / "ckpt.pt", form, theirs, centers=centers))
    assert (found.model.backbone.depth, found.model.backbone.width, found.model.backbone.norm) == (
        depth,
        width,
        "batch" if batch else "none",
    )
    assert (found.origin, found.n_classes, found.model.head) == ("GMMC", 10, MaxMahalanobis(radius=10.0))
    with torch.no_grad():
        features = theirs.double().f(images)  # float32 rounds a logit of -80 to 1e-5
        expected = -0.5 * (features.unsqueeze(1) - centers.unsqueeze(0)).pow(2).sum(-1)
        assert torch.allclose(classifier(found).double()(images), expected, rtol=0, atol=1e-5)
    assert expected.std() > 1e-3


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("bare", [False, True])
def test_the_logits_of_a_jem_are_those_of_its_own_network(
    tmp_path: Path, images: torch.Tensor, form: Form, batch: bool, bare: bool
) -> None:
    theirs = settle(JEM(batch=batch))
    state = theirs.state_dict()
    path = save(state if bare else {"model_state_dict": state, "replay_buffer": replay_buffer()[0]}, tmp_path / "jem.pt", form)
    found = imported(path)
    assert (found.origin, found.model.head, found.buffer is None) == ("JEM", Linear(), bare)
    with torch.no_grad():
        expected = theirs.double().classify(images)
        assert torch.allclose(classifier(found).double()(images), expected, rtol=0, atol=1e-5)
    assert expected.std() > 1e-3


@pytest.mark.parametrize("form", FORMS)
def test_the_layer_of_means_may_have_its_older_name_or_be_a_state_dict(tmp_path: Path, form: Form) -> None:
    now = imported(save_gmmc(tmp_path / "now.pt", form))
    older = imported(save_gmmc(tmp_path / "older.pt", form, name="Loss.LDALoss.LDALoss"))
    with known_as("LDALayer.LDALayer") as layer:
        state = margin(simplex(), layer).state_dict()
    plain = imported(save({"model_state_dict": GMMC().state_dict(), "margin": state}, tmp_path / "plain.pt", form))
    for found in (now, older, plain):
        assert torch.equal(found.weights["head.means"], simplex())


def test_means_that_are_no_simplex_are_kept_as_learnt_ones(tmp_path: Path) -> None:
    centers = torch.randn(10, 64, generator=torch.Generator().manual_seed(1))
    found = imported(save_gmmc(tmp_path / "ckpt.pt", "zip", centers=centers))
    assert isinstance(found.model.head, LDA)
    assert torch.equal(classifier(found).means, centers)


def test_means_of_float32_are_the_simplex_and_stay_as_they_are(tmp_path: Path) -> None:
    centers = simplex() + 1e-4
    found = imported(save_gmmc(tmp_path / "ckpt.pt", "zip", centers=centers))
    assert found.model.head == MaxMahalanobis(radius=10.0)
    assert torch.equal(classifier(found).means, centers)


@pytest.mark.parametrize("form", FORMS)
def test_a_class_major_buffer_keeps_its_places(tmp_path: Path, form: Form) -> None:
    found = imported(save_gmmc(tmp_path / "ckpt.pt", form, buffer=replay_buffer(30)))
    assert found.buffer is not None
    assert found.left_out == ""
    assert torch.equal(found.buffer.flatten(0, 1), replay_buffer(30)[0])
    assert found.buffer.shape == (10, 3, 3, 32, 32)


def test_images_go_to_the_class_of_their_label_as_many_of_each_as_the_rarest_has(tmp_path: Path) -> None:
    images, _ = replay_buffer(24)
    labels = torch.tensor([*range(10), *reversed(range(10)), 3, 3, 3, 3])
    found = imported(save_gmmc(tmp_path / "ckpt.pt", "zip", buffer=[images, labels]))
    assert found.buffer is not None
    assert found.buffer.shape[:2] == (10, 2)
    for k in range(10):
        assert torch.equal(found.buffer[k], images[[k, 19 - k]])
    assert "4 of the 24 images" in found.left_out


def test_a_buffer_of_jem_is_divided_among_the_classes_by_its_places(tmp_path: Path) -> None:
    document = {"model_state_dict": JEM().state_dict(), "replay_buffer": replay_buffer(23)[0]}
    found = imported(save(document, tmp_path / "jem.pt", "zip"))
    assert found.buffer is not None
    assert found.buffer.shape[:2] == (10, 2)
    assert "3 of the 23 images" in found.left_out
    assert (found.buffer.flatten(0, 1)[1:, 0, 0, 0] > found.buffer.flatten(0, 1)[:-1, 0, 0, 0]).all()


IMAGES, LABELS = replay_buffer()


@pytest.mark.parametrize(
    ("buffer", "why"),
    [
        ([IMAGES / 0, LABELS], "not finite"),
        ([IMAGES, LABELS[:5]], "its labels are not 20 numbers from 0 to 9"),
        ([IMAGES, LABELS + 1], "its labels are not"),
        ([IMAGES, LABELS - 1], "its labels are not"),
        ([IMAGES, LABELS.float()], "its labels are not"),
        ([IMAGES, LABELS.clamp(max=8)], "no image of class 9"),
        ([IMAGES[:, :1].clone(), LABELS], "its shape is (20, 1, 32, 32)"),
        ([IMAGES[:0], LABELS[:0]], "its shape is (0, 3, 32, 32)"),
        ([IMAGES[:3].clone(), LABELS[:3].clone()], "no image of class"),
        ({"images": IMAGES}, "neither a tensor nor a list"),
        ([IMAGES, LABELS, LABELS], "neither a tensor nor a list"),
        (7, "neither a tensor nor a list"),
    ],
)
def test_a_buffer_that_will_not_do_is_left_out_in_a_sentence(tmp_path: Path, buffer: object, why: str) -> None:
    found = imported(save_gmmc(tmp_path / "ckpt.pt", "zip", buffer=buffer))
    assert found.buffer is None
    assert why in found.left_out
    assert found.weights


@pytest.mark.parametrize("document", [[], None])
def test_a_file_may_have_no_buffer(tmp_path: Path, document: object) -> None:
    path = save({"model_state_dict": JEM().state_dict(), "replay_buffer": document}, tmp_path / "jem.pt", "zip")
    assert (imported(path).buffer, imported(path).left_out) == (None, "")


NAN = torch.full((16,), torch.nan)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"f.conv1.bias": None}, "f.conv1.bias is missing"),
        ({"f.conv1.bias": "nothing"}, "f.conv1.bias is missing"),
        ({"f.conv1.bias": torch.zeros(17)}, "f.conv1.bias has the shape (17,), not (16,)"),
        ({"f.conv1.weight": torch.zeros(16, 1, 3, 3)}, "f.conv1.weight has the shape (16, 1, 3, 3), not (16, 3, 3, 3)"),
        ({"f.conv1.bias": NAN}, "f.conv1.bias holds numbers that are not finite"),
        ({"f.conv1.bias": torch.zeros(16, dtype=torch.int64)}, "f.conv1.bias has numbers of type torch.int64"),
        ({"f.layer3.0.conv1.weight": torch.zeros(65, 32, 3, 3)}, "no Wide-ResNet"),
        ({"f.layer3.0.conv1.weight": None}, "no Wide-ResNet"),
        ({"f.layer1.0.conv1.weight": None}, "no Wide-ResNet"),
        ({"f.layer1.1.conv1.weight": torch.zeros(16, 16, 3, 3)}, "f.layer1.0.bn1"),
        ({"f.layer4.0.conv1.weight": torch.zeros(1)}, "it has 'f.layer4.0.conv1.weight', which a WRN-10-1 of GMMC or JEM has not"),
        ({"f.\x1b[31m\n": torch.zeros(1)}, "it has 'f.\\x1b[31m\\n'"),
        ({"f.bn1.weight": torch.ones(64)}, "its norm is neither none nor batch norm"),
        ({"f.bn1.loc": torch.ones(64)}, "its norm is neither none nor batch norm"),
    ],
)
def test_weights_that_are_not_theirs_are_one_sentence(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    path = save_gmmc(tmp_path / "ckpt.pt", "zip", **changes)
    if "layer1.1" in next(iter(changes)):
        says = "f.layer1.1.conv1.bias is missing"
    with pytest.raises(CheckpointError) as raised:
        imported(path)
    assert says in raised.value.message
    assert raised.value.message.startswith("ckpt.pt cannot be imported: ")
    assert "\n" not in raised.value.message


@pytest.mark.parametrize(
    ("centers", "says"),
    [
        (simplex(dim=32), "centers has the shape (10, 32), not (n, 64)"),
        (torch.zeros(10, 64), "no class means"),
        (torch.ones(66, 64), "no class means"),
        (torch.ones(1, 64), "no class means"),
        (simplex() * torch.nan, "centers holds numbers that are not finite"),
    ],
)
def test_means_that_are_none_are_one_sentence(tmp_path: Path, centers: torch.Tensor, says: str) -> None:
    with pytest.raises(CheckpointError) as raised:
        imported(save_gmmc(tmp_path / "ckpt.pt", "legacy", centers=centers))
    assert says in raised.value.message


def test_what_is_neither_gmmc_nor_jem_is_one_sentence(tmp_path: Path) -> None:
    weights = GMMC().state_dict()
    for number, (document, says) in enumerate(
        [
            ([1], "it is no dictionary"),
            ({1: 2}, "it is no dictionary of names"),
            ({}, "no Wide-ResNet"),
            (torch.zeros(3), "it is no dictionary"),
            ({"model_state_dict": 3}, "model_state_dict is no dictionary"),
            ({"model_state_dict": weights}, "neither GMMC's margin nor JEM's class_output"),
            ({"model_state_dict": weights, "margin": 3}, "margin is no dictionary"),
            ({"model_state_dict": weights, "margin": {}}, "centers is missing"),
            (weights | {"class_output.weight": torch.zeros(10, 32)}, "class_output.weight has the shape (10, 32), not (n, 64)"),
            (weights | {"class_output.weight": torch.zeros(10, 64)}, "class_output.bias is missing"),
            (weights | {"class_output.weight": torch.zeros(1, 64), "class_output.bias": torch.zeros(1)}, "it has 1 classes"),
        ]
    ):
        with pytest.raises(CheckpointError) as raised:
            imported(save(document, tmp_path / f"{number}.pt", "zip"))
        assert says in raised.value.message
