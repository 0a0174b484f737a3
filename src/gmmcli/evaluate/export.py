"""A trained model for others: an ONNX graph from bytes to verdicts, weights with their card, and a page that explains both."""

import contextlib
import io
import json
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gmmcli.core.classifier import Classifier
from gmmcli.core.energy import class_log_probs, log_density
from gmmcli.data.outliers import short_name
from gmmcli.errors import MissingPartError, RunError
from gmmcli.evaluate.classify import KNOWN, Judgement
from gmmcli.evaluate.tables import format_estimate
from gmmcli.run import Run
from gmmcli.storage import replacing, write_text
from gmmcli.tensor_file import write_tensors
from gmmcli.types import to_model

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OUTPUTS = ("features", "logits", "log_density", "probabilities", "known")
TOLERANCE = 1e-3
"""Of verified probabilities: the arithmetic of another library rounds otherwise."""
VERIFIED = 64  # images


class Graph(nn.Module):
    """Byte images as image libraries give them, shape (n, height, width, channel), to ``OUTPUTS``; in float32.

    The model is the graph's own: what computes its weights (spectral norm) is replaced by the weights.
    """

    def __init__(self, model: Classifier, judge: Judgement) -> None:
        super().__init__()
        self.model = model
        self.gamma2, self.temperature, self.threshold = judge.subject.gamma2, judge.temperature, judge.threshold
        for module in self.model.modules():
            for name in [*getattr(module, "parametrizations", ())]:
                nn.utils.parametrize.remove_parametrizations(module, name)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return features, logits, log p(x) up to a constant, calibrated p(y|x), and whether the image is known."""
        features = self.model.features(to_model(images.permute(0, 3, 1, 2)))
        logits = self.model.head(features)
        density = log_density(logits, self.gamma2)
        return features, logits, density, class_log_probs(logits, self.temperature).exp(), density >= self.threshold


def export(judge: Judgement, folder: Path, onnx: bool = True) -> list[Path]:
    """Write ``model.safetensors``, ``model.onnx`` and ``README.md`` to a folder, and return their paths.

    Args:
        judge: the model, with its temperature and threshold.
        folder: made where it is missing; files of these names in it are replaced.
        onnx: write the graph as well.

    Raises:
        MissingPartError: ONNX's packages are not installed.
        DataError: there are too few validation images for a threshold.
        RunError: the graph does not compute what the model does.
    """
    subject = judge.subject
    if onnx and (missing := [name for name in PACKAGES if find_spec(name) is None]):
        raise MissingPartError(f"export to ONNX needs {', '.join(missing)}", "pip install 'gmmcli[onnx]', or use --no-onnx")
    text = card(judge, onnx)  # before anything is written, for its errors
    folder.mkdir(parents=True, exist_ok=True)
    weights, page, graph = folder / "model.safetensors", folder / "README.md", folder / "model.onnx"
    with replacing(weights) as hidden:
        write_tensors(hidden, {name: tensor.cpu() for name, tensor in subject.model.state_dict().items()}, subject.card.dump())
    if onnx:
        _write_graph(judge, graph)
    write_text(page, text)
    return [weights, *([graph] if onnx else []), page]


def _write_graph(judge: Judgement, path: Path) -> None:
    """Write the ONNX file, and compare what it computes with the model."""
    import onnxruntime  # type: ignore[import-untyped]

    model = judge.subject.card.build()
    model.load_state_dict(judge.subject.model.state_dict())
    graph, images = Graph(model, judge).eval(), judge.subject.validation.batch(slice(VERIFIED))[0].permute(0, 2, 3, 1)
    with _silence():
        program = torch.onnx.export(
            graph,
            (images[:2],),
            input_names=["images"],
            output_names=list(OUTPUTS),
            dynamic_shapes={"images": {0: torch.export.Dim("n")}},
            dynamo=True,
        )
    assert program is not None, "torch.onnx.export with dynamo=True returns a program"
    facts = {
        "class_names": json.dumps(judge.subject.card.class_names),
        "temperature": str(judge.temperature),
        "threshold": str(judge.threshold),
        "gamma2": str(judge.subject.gamma2),
    }
    program.model.metadata_props.update(facts)
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces, with the paths of this machine
    with replacing(path) as hidden:
        program.save(hidden)
        session = onnxruntime.InferenceSession(str(hidden), providers=["CPUExecutionProvider"])
        computed = dict(zip(OUTPUTS, session.run(None, {"images": images.numpy()}), strict=True))
        with torch.no_grad():
            expected = dict(zip(OUTPUTS, graph(images), strict=True))
        apart = float(np.abs(computed["probabilities"] - expected["probabilities"].numpy()).max())
        if not apart <= TOLERANCE:
            raise RunError(f"the ONNX graph's probabilities differ by {apart:.2g} from the model's", "export with --no-onnx")


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Without what the exporter prints of its progress and its own deprecations."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def figures(run: Run) -> list[tuple[str, str, str]]:
    """The figures that a run has results of: a name, the value with its interval, and of what it was measured."""
    found = []
    for result in run.results().values():
        about, values = f"{result.get('dataset')} {result.get('split')}, n = {result.get('n')}", result["values"]
        if refinement := result.get("protocol", {}).get("refinement"):
            about += f", refined: {refinement}"
        match result["command"]:
            case "eval accuracy":
                found.append(("accuracy", format_estimate("accuracy", values), about))
            case "eval calibrate":
                found.append(("ECE at the fitted temperature", format_estimate("ece", values["variants"]["temperature"]), about))
            case "eval ood":
                sets = {name: one["log_px"] for name, one in values.items() if "log_px" in one}
                found += [
                    (f"AUROC of log p(x) against {short_name(name)}", format_estimate("auroc", one), about) for name, one in sets.items()
                ]
            case "attack audit":
                found.append(("robust accuracy", values["sentence"], about))
    return found


def card(judge: Judgement, onnx: bool) -> str:
    """The page, in Markdown with front matter: what the model is, how to use it, what was measured. It names no path of this machine."""
    subject, recipe, names = judge.subject, judge.subject.card.recipe, judge.subject.card.class_names
    channels, height, width = subject.card.image_shape
    measured = "\n".join(f"| {name} | {value} | {about} |" for name, value, about in figures(subject.run))
    front = {"library_name": "gmmcli", "tags": ["image-classification", "energy-based-model"], "model_name": recipe.name}
    parts = [
        "---\n" + "\n".join(f"{key}: {json.dumps(value)}" for key, value in front.items()) + "\n---",
        f"# {recipe.name}",
        f"A classifier of {len(names)} classes that also tells log p(x); trained on {subject.dataset.title} with gmmcli, "
        f"{subject.step:,} steps. Classes: {', '.join(names)}.",
        f"Images are {width} x {height}, {'grey' if channels == 1 else 'RGB'}: resize the shorter side, crop the centre.",
        f"An image is called known if its log p(x) reaches {judge.threshold:.6g}, as {KNOWN:.0%} of {len(subject.validation)} validation "
        f"images do. Probabilities are at temperature {judge.temperature:.6g}.",
        "## Measured",
        "| figure | value, 95% interval | measured on |\n|---|---|---|\n" + measured if measured else "Nothing yet: run `gmmc eval all`.",
        "## Use",
        USE.format(size=width, mode="L" if channels == 1 else "RGB", shape=(1, height, width, channels)) if onnx else "",
        "`gmmcli.load_model('model.safetensors')` returns the classifier and its card.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


USE = """```python
import json
import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession("model.onnx")
names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
image = ImageOps.fit(Image.open("photo.jpg").convert("{mode}"), ({size}, {size}), Image.Resampling.LANCZOS)
probabilities, known = session.run(["probabilities", "known"], {{"images": np.asarray(image, np.uint8).reshape{shape}}})
print(names[probabilities[0].argmax()], probabilities.max(), "known" if known[0] else "unknown")
```"""
