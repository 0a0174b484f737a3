"""The smallest change that makes a subject's images misclassified (C&W): found, saved image by image, and drawn."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gmmcli.attacks.carlini import CarliniWagner
from gmmcli.attacks.pixel_model import PixelModel, distances, pixel_logits
from gmmcli.attacks.within_ball import common_logits
from gmmcli.core.classifier import frozen
from gmmcli.data.pictures import save_grid
from gmmcli.distributed import divided, once, world
from gmmcli.errors import RecipeError
from gmmcli.evaluate.measured import Measured, save
from gmmcli.evaluate.robustness import attacked, save_adversarial
from gmmcli.evaluate.subject import Subject
from gmmcli.metrics.accuracy import proportion
from gmmcli.metrics.intervals import mean_interval
from gmmcli.progress import ProgressBar
from gmmcli.results import departures

SHOWN = 10  # classes in a picture
AT_A_TIME = 100  # images between two lines of progress


def carlini(
    subject: Subject,
    attack: CarliniWagner,
    *,
    float64: bool = False,
    save_to: Path | None = None,
    out: Path | None = None,
    quiet: bool = True,
) -> Measured:
    """Mean and median of the smallest L2 change (Table 7), with clean image, change and adversarial image side by side (Fig. 7)."""
    model, pixels, labels = attacked(subject, float64)
    with frozen(model):
        clean = common_logits(model, pixels).argmax(1) == labels
        if not bool(clean.any()):
            raise RecipeError(f"run {subject.run.id} classifies none of these {len(labels)} images correctly", "there is nothing to attack")
        success, found = _attack(attack, model, pixels[clean], labels[clean], quiet)
        predicted = pixel_logits(model, found).argmax(1)
    norms = distances(found, pixels[clean], "l2")
    protocol = asdict(attack) | {
        "attacked": "images classified correctly",
        "n_attacked": int(clean.sum()),
        "norm": "L2 in [0, 1] pixels",
    }
    result = subject.result("attack cw", protocol, _values(clean, success, norms, pixels[0].numel()))
    smallest = torch.full_like(labels, torch.nan, dtype=norms.dtype)
    smallest[clean] = torch.where(success, norms, torch.inf)
    arrays = {"l2": smallest.cpu().numpy(), "labels": labels.cpu().numpy()}
    words = [*departures(attack, CarliniWagner()), *["float64"] * float64]
    rows = _rows(subject.card.class_names, pixels[clean], found, labels[clean], predicted, success)
    caption = f"{subject.card.recipe.name}: clean, change (enlarged to full range), adversarial"
    picture = partial(save_grid, rows, caption=caption, cell=64) if rows else None
    measured = save(subject, result, *words, arrays=arrays, picture=picture, out=out)
    if save_to:
        adversarial = pixels.clone()
        adversarial[clean] = found.to(pixels.dtype)
        measured.pictures.extend(once(partial(save_adversarial, save_to, adversarial, fell=arrays["l2"], labels=arrays["labels"])))
    return measured


def _attack(attack: CarliniWagner, model: PixelModel, pixels: Tensor, labels: Tensor, quiet: bool) -> tuple[Tensor, Tensor]:
    """Whether the attack on each image succeeded, and what it found; each of several processes attacks its share of the images."""

    def attacked(mine: slice) -> tuple[Tensor, Tensor]:
        parts = []
        with ProgressBar("cw", len(labels), quiet, unit="images") as bar:
            for x, y in zip(torch.split(pixels[mine], AT_A_TIME), torch.split(labels[mine], AT_A_TIME), strict=True):
                parts.append(attack(model, x, y))
                bar.update(min(len(labels), sum(len(success) for success, _ in parts) * world().size))
        return torch.cat([success for success, _ in parts]), torch.cat([found for _, found in parts])

    success, found = divided(len(labels), attacked)
    return success, found


def _values(clean: Tensor, success: Tensor, norms: Tensor, n_pixels: int) -> dict[str, Any]:
    reached, rate = norms[success].cpu(), proportion(success)
    return {
        "clean_accuracy": proportion(clean)["accuracy"],
        "success_rate": rate["accuracy"],
        "success_ci95": rate["ci95"],
        "l2_mean": float(reached.mean()) if len(reached) else None,
        "l2_mean_ci95": mean_interval(reached, 0.0, n_pixels**0.5) if len(reached) else None,
        "l2_median": float(reached.median()) if len(reached) else None,
    }


def _rows(
    names: Sequence[str], pixels: Tensor, found: Tensor, labels: Tensor, predicted: Tensor, success: Tensor
) -> list[tuple[str, Tensor]]:
    """One misclassified image of each class, with its true and its predicted class."""
    picked = torch.cat([((labels == k) & success).nonzero().flatten()[:1] for k in range(len(names))])[:SHOWN].tolist()
    return [(f"{names[int(labels[i])]} > {names[int(predicted[i])]}", _triple(pixels[i], found[i])) for i in picked]


def _triple(clean: Tensor, adversarial: Tensor) -> Tensor:
    """The three images of a row, in the model range."""
    change = adversarial - clean
    return (torch.stack([clean * 2 - 1, change / change.abs().max().clamp(min=1e-12), adversarial * 2 - 1])).float().cpu()
