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
from gmmcli.attacks.attack import Attack, Outcome
from gmmcli.attacks.audit import format_eps
from gmmcli.attacks.pixel_model import PixelModel
from gmmcli.attacks.within_ball import common_logits, over_eps
from gmmcli.core.classifier import frozen
from gmmcli.distributed import any_of, gather, once, world
from gmmcli.evaluate import plots
from gmmcli.evaluate.measured import Measured, save
from gmmcli.evaluate.robustness import attacked, pixel_protocol
from gmmcli.evaluate.subject import Subject
from gmmcli.progress import ProgressBar
from gmmcli.storage import replacing

Plan = Mapping[str, tuple[Attack, tuple[float, ...]]]
"""Each attack by name, and the radii at which it runs."""


def audit(subject: Subject, *, transfer: Subject | None = None, out: Path | None = None, quiet: bool = True) -> Measured:
    """The whole suite at all radii, its worst case and its findings; resumes an interrupted audit of the same kind."""
    n_classes = len(subject.card.class_names)
    suite = audits.suite(n_classes)
    plan: Plan = {name: (attack, audits.EPS) for name, attack in suite.items()}
    plan = {**plan, **{name: (attack, (audits.FOCUS,)) for name, attack in audits.AT_FOCUS.items()}}
    model, pixels, labels = attacked(subject)
    folder = subject.run.output / "results" / f"attack-audit-{_fingerprint(subject, transfer, plan)}"
    with frozen(model):
        clean = common_logits(model, pixels).argmax(1) == labels
        zero = audits.zero_gradients(model, pixels[clean], labels[clean])
        fell = _radii(plan, folder, model, pixels, labels, transfer, quiet)
    values = audits.audit_values(audits.Curves(fell, audits.EPS), zero.cpu(), clean.cpu(), n_classes, audits.FOCUS)
    protocol = {
        "norm": "linf",
        "attacks": {name: asdict(attack) for name, (attack, _) in plan.items()},
        "left_out": [attack.name for attack in audits.SUITE if attack.name not in suite],
        "transfer_from": transfer.run.id if transfer else None,
        "worst_case": "of each image, over all attacks",
        **pixel_protocol(),
    }
    arrays = {name.replace(" ", "_"): radius.numpy() for name, radius in fell.items()} | {"labels": labels.cpu().numpy()}
    curves = {name: _curve(values["attacks"][name]) for name in fell if name not in audits.AT_FOCUS}
    title = f"{subject.card.recipe.name}, n = {len(labels):,}"
    figure = plots.robustness(curves, _curve(values["worst_case"]), values["clean_accuracy"], title)
    words = [f"transfer {transfer.run.id}"] if transfer else []
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
    plan: Plan, folder: Path, model: PixelModel, pixels: Tensor, labels: Tensor, transfer: Subject | None, quiet: bool
) -> dict[str, Tensor]:
    """The radius at which each image fell, by attack; what an interrupted audit left in ``folder`` is not run again."""
    fell = {}
    with ProgressBar("audit", len(plan) + (transfer is not None), quiet, unit="attacks") as bar:
        for i, (name, (attack, eps)) in enumerate(plan.items(), 1):
            fell[name] = _saved(folder / f"{name}.npy", partial(over_eps, attack, model, pixels, labels, eps))
            left = float((fell[name] > audits.FOCUS).double().mean())
            bar.update(i, f"{name} leaves {left:.1%} at {format_eps(audits.FOCUS)}")
        if transfer:
            fell["transfer"] = _transfer(model, transfer, pixels, labels).cpu()
            bar.update(len(plan) + 1)
    return fell


def _saved(path: Path, run: Callable[[], tuple[Tensor, Tensor, list[Outcome]]]) -> Tensor:
    """Read the radii of an attack from a file, or run the attack and write the file, whole or not at all; the main process for all."""
    if any_of(world().is_main and path.exists()):
        return gather(torch.from_numpy(np.load(path, allow_pickle=False)) if world().is_main else torch.empty(0, dtype=torch.float64))
    found = run()[0].cpu()

    def write() -> list[Path]:
        with replacing(path) as hidden:
            np.save(hidden, found.numpy(), allow_pickle=False)
        return [path]

    once(write)
    return found


def _transfer(model: PixelModel, other: Subject, pixels: Tensor, labels: Tensor) -> Tensor:
    """The radius at which each image falls to what a margin attack on the other model made of it."""
    surrogate = attacked(other)[0]
    clean = common_logits(model, pixels).argmax(1) == labels
    fell = torch.where(clean, float("inf"), 0.0).double()
    attack = Attack("pgd", "margin", throughout=True)
    with frozen(surrogate):
        for radius in audits.EPS:
            rows = ((fell == float("inf")) & (common_logits(surrogate, pixels).argmax(1) == labels)).nonzero().squeeze(1)
            _, adversarial, _ = over_eps(attack, surrogate, pixels[rows], labels[rows], [radius])
            fell[rows[audits.transferred(model, adversarial, pixels[rows], labels[rows], radius)]] = radius
    return fell


def _fingerprint(subject: Subject, transfer: Subject | None, plan: Plan) -> str:
    """What an interrupted audit must agree in to be resumed."""
    about = [subject.run.id, subject.step, subject.split, subject.n, subject.seed, subject.dataset.title, transfer and transfer.run.id]
    return sha256(json.dumps([*about, {name: [asdict(attack), eps] for name, (attack, eps) in plan.items()}]).encode()).hexdigest()[:12]
