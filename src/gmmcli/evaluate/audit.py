"""The audit of a subject: every attack of the suite, resumable attack by attack, then saved and drawn."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from hashlib import sha256
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gmmcli.attacks import audit as audits
from gmmcli.attacks.attack import Attack
from gmmcli.attacks.audit import format_eps
from gmmcli.attacks.expectation import DRAWS, Expectation
from gmmcli.attacks.pixel_model import PixelModel
from gmmcli.attacks.transfer import transfer_over_eps
from gmmcli.attacks.within_ball import common_logits, over_eps
from gmmcli.core.classifier import frozen
from gmmcli.distributed import any_of, gather, once, world
from gmmcli.errors import RecipeError
from gmmcli.evaluate import plots
from gmmcli.evaluate.measured import Measured, save
from gmmcli.evaluate.robustness import attacked, eot_words, pixel_protocol
from gmmcli.evaluate.subject import Subject
from gmmcli.progress import ProgressBar
from gmmcli.storage import replacing

Plan = Mapping[str, tuple[Attack, tuple[float, ...]]]
"""Each attack by name, and the radii at which it runs."""
Task = Callable[[], tuple[Any, ...]]
"""Runs one; the radius at which each image fell comes first."""
MARGIN = Attack("pgd", "margin")
"""What is tried straight through a refinement, and by transfer."""


def audit(subject: Subject, *, transfer: Subject | None = None, eot: int = DRAWS, out: Path | None = None, quiet: bool = True) -> Measured:
    """The whole suite at all radii, its worst case and its findings; resumes an interrupted audit of the same kind.

    Of a refined classifier the suite knows of the refinement, and what an attack that ignores it makes is tried as well.

    Raises:
        RecipeError: the run to transfer from takes images of another size.
    """
    if transfer and transfer.card.image_shape != subject.card.image_shape:
        raise RecipeError(
            f"run {transfer.run.id} takes images of another size than {subject.run.id}", "transfer from a run on the same data"
        )
    n_classes = len(subject.card.class_names)
    suite = audits.suite(n_classes)
    plan: Plan = {name: (attack, audits.EPS) for name, attack in suite.items()}
    plan = {**plan, **{name: (attack, (audits.FOCUS,)) for name, attack in audits.AT_FOCUS.items()}}
    model, pixels, labels = attacked(subject, eot=eot)
    if isinstance(model, Expectation):
        plan = {**plan, audits.STRAIGHT_THROUGH: (MARGIN, audits.EPS)}
    folder = subject.run.output / "results" / f"attack-audit-{_fingerprint(subject, transfer, plan, model)}"
    with frozen(model):
        clean = common_logits(model, pixels).argmax(1) == labels
        zero = audits.zero_gradients(model, pixels[clean], labels[clean])
        fell = _radii(plan, folder, model, pixels, labels, attacked(transfer)[0] if transfer else None, quiet)
    values = audits.audit_values(audits.Curves(fell, audits.EPS), zero.cpu(), clean.cpu(), n_classes, audits.FOCUS)
    if subject.refinement:
        values["sentence"] = f"Refined by {subject.refinement}. {values['sentence']}"
    protocol = {
        "norm": "linf",
        "attacks": {name: asdict(attack) for name, (attack, _) in plan.items()},
        "left_out": [attack.name for attack in audits.SUITE if attack.name not in suite],
        "transfer_from": transfer.run.id if transfer else None,
        "worst_case": "of each image, over all attacks",
        **pixel_protocol(model),
    }
    arrays = {name.replace(" ", "_"): radius.numpy() for name, radius in fell.items()} | {"labels": labels.cpu().numpy()}
    curves = {name: _curve(values["attacks"][name]) for name in fell if name not in audits.AT_FOCUS}
    title = f"{subject.card.recipe.name}, n = {len(labels):,}"
    figure = plots.robustness(curves, _curve(values["worst_case"]), values["clean_accuracy"], title)
    words = ([f"transfer {transfer.run.id}"] if transfer else []) + eot_words(model)
    measured = save(
        subject,
        subject.result("attack audit", protocol, values),
        *words,
        arrays=arrays,
        picture=partial(plots.save, figure),
        out=out,
        warnings=[f"{one['name']}: {one['why']}" for one in values["verdicts"] if one["fired"]],
    )
    if world().is_main:
        rmtree(folder)
    return measured


def _curve(rows: Mapping[str, Mapping[str, Any]]) -> dict[float, float]:
    """Accuracy over eps, of all radii of the audit."""
    return {eps: rows[format_eps(eps)]["accuracy"] for eps in audits.EPS}


def _radii(
    plan: Plan, folder: Path, model: PixelModel, pixels: Tensor, labels: Tensor, other: PixelModel | None, quiet: bool
) -> dict[str, Tensor]:
    """The radius at which each image fell, by attack; what an interrupted audit left in ``folder`` is not run again."""
    seen, surrogates = dict.fromkeys(plan, model), {"transfer": other} if other else {}
    if isinstance(model, Expectation):
        seen[audits.STRAIGHT_THROUGH], surrogates[audits.IGNORING] = model.straight, model.plain
    tasks: dict[str, Task] = {name: partial(over_eps, attack, seen[name], pixels, labels, eps) for name, (attack, eps) in plan.items()}
    tasks |= {name: partial(transfer_over_eps, MARGIN, one, model, pixels, labels, audits.EPS) for name, one in surrogates.items()}
    fell = {}
    with ProgressBar("audit", len(tasks), quiet, unit="attacks") as bar:
        for i, (name, task) in enumerate(tasks.items(), 1):
            fell[name] = _saved(folder / f"{name}.npy", task)
            left = float((fell[name] > audits.FOCUS).double().mean())
            bar.update(i, f"{name} leaves {left:.1%} at {format_eps(audits.FOCUS)}")
    return fell


def _saved(path: Path, run: Task) -> Tensor:
    """Read the radii of an attack from a file, or run the attack and write the file, whole or not at all; the main process for all."""
    if any_of(world().is_main and path.exists()):
        return gather(torch.from_numpy(np.load(path, allow_pickle=False)) if world().is_main else torch.empty(0, dtype=torch.float64))
    found: Tensor = run()[0].cpu()

    def write() -> list[Path]:
        with replacing(path) as hidden:
            np.save(hidden, found.numpy(), allow_pickle=False)
        return [path]

    once(write)
    return found


def _fingerprint(subject: Subject, transfer: Subject | None, plan: Plan, model: PixelModel) -> str:
    """What an interrupted audit must agree in to be resumed."""
    about = [subject.run.id, subject.step, subject.split, subject.n, subject.seed, subject.dataset.title, transfer and transfer.run.id]
    about += [str(subject.refinement), model.draws] if isinstance(model, Expectation) else []
    return sha256(json.dumps([*about, {name: [asdict(attack), eps] for name, (attack, eps) in plan.items()}]).encode()).hexdigest()[:12]
