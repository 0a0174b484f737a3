"""Robust accuracy of a subject under one attack: run, checked, saved image by image."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gmmcli.attacks.algorithms import check, configured
from gmmcli.attacks.attack import DEFAULT_EPS, Attack, Outcome
from gmmcli.attacks.audit import format_eps
from gmmcli.attacks.expectation import DRAWS, Expectation
from gmmcli.attacks.losses import LOSSES
from gmmcli.attacks.pixel_model import PixelModel, distances
from gmmcli.attacks.transfer import transfer_over_eps
from gmmcli.attacks.within_ball import over_eps
from gmmcli.core.classifier import Classifier, frozen
from gmmcli.core.refinement import Refined
from gmmcli.distributed import once
from gmmcli.evaluate.measured import Measured, save
from gmmcli.evaluate.subject import Subject
from gmmcli.metrics.accuracy import proportion
from gmmcli.progress import ProgressBar
from gmmcli.results import departures
from gmmcli.storage import placed, write_arrays


def attacked(subject: Subject, float64: bool = False, scale: float = 1.0, eot: int = DRAWS) -> tuple[PixelModel, Tensor, Tensor]:
    """Return the model as attacks see it, and the subject's images in [0, 1] with their labels, on its device."""
    dtype = torch.float64 if float64 else torch.float32
    model = deepcopy(subject.model).to(dtype)
    for inner in model.modules():
        if isinstance(inner, Classifier):
            inner.bf16 = False
    images, labels = subject.images.to(subject.device).batch()
    seen = Expectation(model, eot, dtype, scale) if isinstance(model, Refined) else PixelModel(model, dtype, scale)
    return seen, images.to(dtype) / 255, labels


def robust_accuracy(
    subject: Subject,
    attack: Attack,
    eps: Sequence[float],
    *,
    float64: bool = False,
    scale: float = 1.0,
    eot: int = DRAWS,
    save_to: Path | None = None,
    quiet: bool = True,
) -> Measured:
    """Robust accuracy under one attack at one or several radii; eps = 0 is clean accuracy.

    A refined classifier is attacked in three ways (``ways``), of which for each image the worst counts.
    """
    check(attack, len(subject.card.class_names))
    radii = sorted(set(eps))
    model, pixels, labels = attacked(subject, float64, scale, eot)
    of_ways: dict[str, Way] = {}
    with frozen(model):
        for name, seen in ways(model, attack).items():
            of_ways[name] = _attacked_so(name, seen, model, attack, pixels, labels, radii, quiet)
        worst = torch.stack([way.fell for way in of_ways.values()]).min(0)
        fell = worst.values
        rows_of = torch.arange(len(labels), device=labels.device)
        adversarial = torch.stack([way.adversarial for way in of_ways.values()])[worst.indices, rows_of]
        rows = {format_eps(radius): _at_radius(radius, fell, of_ways[KNOWING].outcomes[i]) for i, radius in enumerate(radii)}
        if isinstance(model, Expectation):
            by_chance = model.right_under_new_noise(adversarial, labels)
            for radius, row in zip(radii, rows.values(), strict=True):
                row["ways"] = {name: proportion(way.fell > radius)["accuracy"] for name, way in of_ways.items()}
                row["new_noise"] = float(torch.where(fell > radius, 1.0, by_chance).mean())
    values = {
        "clean_accuracy": proportion(fell > 0)["accuracy"],
        "clean_ci95": proportion(fell > 0)["ci95"],
        "eps": rows,
        "largest_change": _largest_change(pixels, adversarial, (fell > 0) & fell.isfinite()),
    }
    protocol = asdict(attack) | {"loss_is": LOSSES[attack.loss].about} | pixel_protocol(model, float64, scale)
    words = departures(attack, configured(attack.kind, seed=attack.seed))
    words += [f"eps {' '.join(values['eps'])}"] * (radii != DEFAULT_EPS[attack.norm])
    words += [f"scale {scale:g}"] * (scale != 1) + ["float64"] * float64
    words += eot_words(model)
    arrays = {"fell": fell.cpu().numpy(), "labels": labels.cpu().numpy()}
    result = subject.result(f"attack {attack.kind}", protocol, values)
    measured = save(subject, result, *words, arrays=arrays, warnings=_warnings(attack, values["eps"]))
    return measured._replace(pictures=once(partial(save_adversarial, save_to, adversarial, **arrays))) if save_to else measured


EXPECTED = ", through the refinement: mean over {} draws of its noise (EOT), also straight through (BPDA); and of the plain model"
KNOWING, STRAIGHT_THROUGH, IGNORING = "eot", "bpda", "ignoring"


class Way(NamedTuple):
    """What one way to attack left."""

    fell: Tensor
    adversarial: Tensor
    outcomes: Sequence[Outcome]


def ways(model: PixelModel, attack: Attack) -> dict[str, PixelModel]:
    """Return what is attacked: the model; of a refined one also with gradients straight through the chain, and without the chain."""
    if not isinstance(model, Expectation):
        return {KNOWING: model}
    straight = {} if attack.kind == "square" else {STRAIGHT_THROUGH: model.straight}  # which asks for no gradient
    return {KNOWING: model, **straight, IGNORING: model.plain}


def _attacked_so(
    name: str, seen: PixelModel, model: PixelModel, attack: Attack, pixels: Tensor, labels: Tensor, radii: list[float], quiet: bool
) -> Way:
    """Attack what is seen of the model; what ignores the refinement is shown to the model afterwards."""
    title = attack.name if name == KNOWING else f"{attack.name} {name}"
    with ProgressBar(title, len(labels) * len(radii), quiet, unit="images") as bar:

        def progress(radius: float, done: int, left: int) -> None:
            bar.update(radii.index(radius) * len(labels) + done, f"at {format_eps(radius)}, {left} still classified correctly")

        if name == IGNORING:
            return Way(*transfer_over_eps(attack, seen, model, pixels, labels, radii, progress), ())
        return Way(*over_eps(attack, seen, pixels, labels, radii, progress))


def _at_radius(eps: float, fell: Tensor, outcome: Outcome) -> dict[str, Any]:
    left = proportion(fell > eps)
    return {
        "eps": eps,
        "accuracy": left["accuracy"],
        "ci95": left["ci95"],
        "zero_gradient_share": outcome.zero_gradients / outcome.gradients if outcome.gradients else None,
        "forwards": outcome.forwards,
    }


def _largest_change(pixels: Tensor, adversarial: Tensor, broken: Tensor) -> dict[str, float]:
    """The largest distance of a broken image from the clean one, by norm."""
    if not bool(broken.any()):
        return {"linf": 0.0, "l2": 0.0}
    return {norm: float(distances(adversarial, pixels, norm)[broken].max()) for norm in ("linf", "l2")}


def pixel_protocol(model: PixelModel, float64: bool = False, scale: float = 1.0) -> dict[str, Any]:
    """How the model is attacked, whatever the attack."""
    return {
        "pixels": "[0, 1]; eps in pixels",
        "output": f"logits{'' if scale == 1 else f' / {scale:g}'}, {'float64' if float64 else 'float32'}, no softmax",
        "gradient": "of each image's own loss" + (EXPECTED.format(model.draws) if isinstance(model, Expectation) else ""),
        "carried_over": "an image broken at one eps counts as broken at every larger one",
        "interval": "Wilson 95%",
    }


def eot_words(model: PixelModel) -> list[str]:
    """Return what the name of a result says of the draws in a gradient: nothing where they are as usual, or there is nothing to draw."""
    return [f"eot {model.draws}"] if isinstance(model, Expectation) and model.random and model.draws != DRAWS else []


def _warnings(attack: Attack, per_eps: Mapping[str, Mapping[str, Any]]) -> list[str]:
    gap = max((row["ways"][KNOWING] - row["ways"][IGNORING] for row in per_eps.values() if "ways" in row), default=0.0)
    if gap > 0.05:
        return [f"an attack that ignores the refinement breaks {100 * gap:.1f} points more than EOT: the chain hides its gradient"]
    largest = max(row["zero_gradient_share"] or 0.0 for row in per_eps.values())
    if largest > 0.01:
        return [f"{largest:.1%} of the gradients are zero in every pixel: this accuracy is masked; run gmmc attack audit"]
    if attack.loss == "ce":
        return ["cross-entropy of unscaled logits is prone to gradient masking; gmmc attack audit measures the worst case of many attacks"]
    return []


def save_adversarial(path: Path, adversarial: Tensor, **arrays: np.ndarray) -> list[Path]:
    """Write adversarial images as float32 in [0, 1], with arrays of as many entries: rounding to bytes would undo some.

    Into a folder as adversarial.npz.
    """
    path = placed(path, Path("adversarial.npz"))
    write_arrays(path, images=adversarial.float().cpu().permute(0, 2, 3, 1).numpy(), **arrays)
    return [path]
