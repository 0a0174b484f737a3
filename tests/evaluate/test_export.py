"""What is exported computes what the model does, without gmmcli, and says what it is."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
import pytest
import torch
from PIL import Image

from gmmcli.core.model import Model
from gmmcli.core.wide_resnet import WideResNet
from gmmcli.errors import MissingPartError, RunError
from gmmcli.evaluate import export as module
from gmmcli.evaluate.classify import Judgement
from gmmcli.evaluate.export import OUTPUTS, Graph, export, figures
from gmmcli.evaluate.subject import Subject
from gmmcli.model_card import load_model
from gmmcli.run import Run
from gmmcli.types import to_model


@pytest.fixture(scope="module")
def exported(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all three files."""
    folder = tmp_path_factory.mktemp("exported")
    run = Run(Path(shutil.copytree(trained.path, folder / "runs" / "run")))
    paths = export(Judgement(Subject.open(run.path)), folder / "out")
    assert [path.name for path in paths] == ["model.safetensors", "model.onnx", "README.md"]
    return folder / "out"


@pytest.mark.parametrize("n", [1, 7])
def test_the_graph_computes_what_the_model_does_of_any_number_of_images(exported: Path, subject: Subject, n: int) -> None:
    judge = Judgement(subject)
    images, _ = subject.images.batch(slice(n))
    session = onnxruntime.InferenceSession(str(exported / "model.onnx"), providers=["CPUExecutionProvider"])
    found = dict(zip(OUTPUTS, session.run(list(OUTPUTS), {"images": images.permute(0, 2, 3, 1).numpy()}), strict=True))
    with torch.no_grad():
        features, logits = subject.model.features(to_model(images)), subject.model(to_model(images))
    np.testing.assert_allclose(found["features"], features, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["logits"], logits, rtol=1e-4, atol=1e-3)
    verdicts = judge(images)
    np.testing.assert_allclose(found["log_density"], [one.log_density for one in verdicts], rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(found["probabilities"].max(1), [one.probability for one in verdicts], atol=1e-4)
    assert [subject.card.class_names[k] for k in found["probabilities"].argmax(1)] == [one.label for one in verdicts]
    assert found["known"].tolist() == [one.known for one in verdicts]


def test_the_graph_tells_no_path_of_this_machine(exported: Path) -> None:
    content = (exported / "model.onnx").read_bytes()
    for place in (str(Path(__file__).parents[2]), "site-packages", str(Path.home()), ".py"):
        assert place.encode() not in content


def test_the_page_explains_itself_and_its_example_runs(
    exported: Path, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (exported / "README.md").read_text()
    assert page.startswith("---\nlibrary_name:")
    images, _ = subject.images.batch(slice(1))
    shutil.copy(exported / "model.onnx", tmp_path)
    Image.fromarray(images[0, 0].numpy()).save(tmp_path / "photo.jpg", format="png")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall("```python\n(.*?)```", page, re.DOTALL)
    exec(code, {})
    (verdict,) = Judgement(subject)(images)
    label, probability, known = capsys.readouterr().out.split()
    assert (label, float(probability), known) == (
        verdict.label,
        pytest.approx(verdict.probability, abs=1e-4),
        ["unknown", "known"][verdict.known],
    )


def test_the_weights_open_by_themselves(exported: Path, subject: Subject) -> None:
    model, card = load_model(exported / "model.safetensors")
    assert card.class_names == subject.card.class_names
    assert all(torch.equal(tensor, subject.model.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_what_was_measured_is_told_with_its_interval_and_its_images(subject: Subject) -> None:
    assert figures(subject.run) == []
    values = {"accuracy": 0.9, "ci95": [0.8, 0.95]}
    subject.run.save_result(subject.result("eval accuracy", {}, values))
    assert figures(subject.run) == [("accuracy", "90.00% [80.00, 95.00]", "digits.npz test, n = 120")]
    subject.run.save_result(subject.result("eval accuracy", {"refinement": "10 steps"}, {"accuracy": 0.8}), "eval accuracy refined")
    assert ("accuracy", "80.00%", "digits.npz test, n = 120, refined: 10 steps") in figures(subject.run)
    assert "| accuracy | 90.00% [80.00, 95.00] | digits.npz test, n = 120 |" in module.card(Judgement(subject), onnx=False)


@pytest.mark.parametrize("extra", [{"spectral_norm": True}, {"norm": "batch"}, {"norm": "group", "downsample": "avg-pool"}])
def test_networks_of_every_kind_are_the_same_without_their_parametrizations(subject: Subject, extra: dict[str, object]) -> None:
    model = Model(WideResNet(depth=10, width=1, init="kaiming", **extra)).build(10, 1, seed=1).eval()  # type: ignore[arg-type]
    images, _ = subject.images.batch(slice(5))
    with torch.no_grad():
        expected = model(to_model(images))
        graph = Graph(model, Judgement(subject)).eval()
        torch.testing.assert_close(graph(images.permute(0, 2, 3, 1))[1], expected, rtol=1e-4, atol=1e-3)
    assert not any(hasattr(layer, "parametrizations") for layer in graph.model.modules())


def test_a_graph_that_computes_something_else_is_not_kept(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Session:
        def __init__(self, *arguments: object, **more: object) -> None:
            pass

        def run(self, names: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            return [np.full((len(inputs["images"]), 10), 0.5)] * len(OUTPUTS)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    with pytest.raises(RunError, match="the ONNX graph's probabilities differ by"):
        export(Judgement(subject), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.safetensors"]


def test_without_onnx_s_packages(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(MissingPartError, match="needs onnx, onnxscript, onnxruntime"):
        export(Judgement(subject), tmp_path)
    paths = export(Judgement(subject), tmp_path, onnx=False)
    assert [path.name for path in paths] == ["model.safetensors", "README.md"]
    assert "onnxruntime" not in json.dumps(paths[1].read_text())
