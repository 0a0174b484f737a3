"""Attacks on a subject, whole: run, checked, saved image by image, and drawn."""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gmmcli.attacks import audit as audits
from gmmcli.attacks.attack import DEFAULT_EPS, PLAIN, Attack
from gmmcli.attacks.audit import said
from gmmcli.attacks.bounded import over_eps
from gmmcli.attacks.carlini import CarliniWagner
from gmmcli.attacks.losses import LOSSES
from gmmcli.attacks.pixel_model import PixelModel, distances, pixel_logits
from gmmcli.core.classifier import frozen
from gmmcli.data.pictures import save_grid
from gmmcli.errors import RecipeError
from gmmcli.evaluate import plots
from gmmcli.evaluate.measured import Measured
from gmmcli.evaluate.subject import Subject
from gmmcli.metrics.accuracy import share
from gmmcli.metrics.intervals import mean_interval
from gmmcli.progress import Voice
from gmmcli.results import departures
from gmmcli.storage import replacing, write_arrays

SHOWN = 10  # classes in a picture


def attacked(subject: Subject, float64: bool = False, scale: float = 1.0) -> tuple[PixelModel, Tensor, Tensor]:
    """Return the model as attacks see it, and the subject's images in [0, 1] with their labels, on its device."""
    dtype = torch.float64 if float64 else torch.float32
    model = deepcopy(subject.model).to(dtype)
    model.bf16 = False
    images, labels = subject.images.to(subject.device).batch()
    return PixelModel(model, dtype, scale), images.to(dtype) / 255, labels


def bounded(
    subject: Subject,
    attack: Attack,
    eps: Sequence[float],
    *,
    float64: bool = False,
    scale: float = 1.0,
    save: Path | None = None,
    quiet: bool = True,
) -> Measured:
    """Robust accuracy under one attack at one or several radii; eps = 0 is clean accuracy."""
    attack.check(len(subject.card.class_names))
    model, pixels, labels = attacked(subject, float64, scale)
    with frozen(model), Voice(attack.name, len(labels) * len(eps), quiet, unit="images") as voice:
        radii = sorted(set(eps))

        def at(radius: float, done: int, standing: int) -> None:
            voice.at(radii.index(radius) * len(labels) + done, f"at {said(radius)}, {standing} standing")

        fell, adversarial, outcomes = over_eps(attack, model, pixels, labels, radii, at)
    clean = share(fell > 0)
    per_eps = {
        said(radius): {
            "eps": radius,
            **{key: share(fell > radius)[key] for key in ("accuracy", "ci95")},
            "zero_gradient_share": outcome.zero_gradients / outcome.gradients if outcome.gradients else None,
            "forwards": outcome.forwards,
        }
        for radius, outcome in zip(radii, outcomes, strict=True)
    }
    broken = (fell > 0) & fell.isfinite()
    moved = {norm: float(distances(adversarial, pixels, norm)[broken].max()) if bool(broken.any()) else 0.0 for norm in ("linf", "l2")}
    values = {"clean_accuracy": clean["accuracy"], "clean_ci95": clean["ci95"], "eps": per_eps, "largest_change": moved}
    protocol = {**asdict(attack), "loss_is": LOSSES[attack.loss].about, **_protocol(float64, scale)}
    result = subject.result(f"attack {attack.kind}", protocol, values)
    own = departures(attack, replace(PLAIN[attack.kind], seed=attack.seed))
    own += [f"eps {' '.join(per_eps)}"] * (radii != DEFAULT_EPS[attack.norm])
    own += [f"scale {scale:g}"] * (scale != 1) + ["float64"] * float64
    subject.run.save_result(result, subject.name(result["command"], *own), fell=fell.cpu().numpy(), labels=labels.cpu().numpy())
    pictures = [_saved(save, adversarial, fell.cpu().numpy(), labels)] if save else []
    return Measured(result, pictures, _warnings(attack, per_eps))


def _protocol(float64: bool, scale: float) -> dict[str, Any]:
    return {
        "pixels": "[0, 1]; eps in pixels",
        "output": f"logits{'' if scale == 1 else f' / {scale:g}'}, {'float64' if float64 else 'float32'}, no softmax",
        "gradient": "of each image's own loss",
        "carried_over": "an image broken at one eps counts as broken at every larger one",
        "interval": "Wilson 95%",
    }


def _warnings(attack: Attack, per_eps: Mapping[str, Mapping[str, Any]]) -> list[str]:
    shares = [row["zero_gradient_share"] or 0.0 for row in per_eps.values()]
    warnings = []
    if max(shares) > 0.01:
        warnings.append(f"{max(shares):.1%} of the gradients are all zero: this figure is masked; run gmmc attack audit")
    elif attack.loss == "ce":
        warnings.append("cross-entropy of unscaled logits is prone to masking; gmmc attack audit gives a figure to believe")
    return warnings


def _saved(path: Path, adversarial: Tensor, fell: np.ndarray, labels: Tensor) -> Path:
    """Write the adversarial images as float32 in [0, 1]: rounding to bytes would undo some."""
    write_arrays(path, images=adversarial.float().cpu().permute(0, 2, 3, 1).numpy(), fell=fell, labels=labels.cpu().numpy())
    return path


def carlini(
    subject: Subject, attack: CarliniWagner, *, float64: bool = False, save: Path | None = None, out: Path | None = None, quiet: bool = True
) -> Measured:
    """The smallest L2 change that deceives, as Table 7 has it, with clean image, change and adversarial image side by side (Fig. 7)."""
    model, pixels, labels = attacked(subject, float64)
    with frozen(model):
        clean = pixel_logits(model, pixels).argmax(1) == labels
        rows = clean.nonzero().squeeze(1)
        if not len(rows):
            raise RecipeError(f"run {subject.run.id} classifies none of these {len(labels)} images rightly", "there is nothing to attack")
        parts = []
        with Voice("cw", len(rows), quiet, unit="images") as voice:
            for part in torch.split(rows, 100):
                parts.append(attack(model, pixels[part], labels[part]))
                voice.at(sum(len(done) for done, _ in parts))
        success, found = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
        predicted = pixel_logits(model, found).argmax(1)
    norms = distances(found, pixels[rows], "l2")
    reached = norms[success]
    rate = share(success)
    values = {
        "clean_accuracy": share(clean)["accuracy"],
        "success_rate": rate["accuracy"],
        "success_ci95": rate["ci95"],
        "l2_mean": float(reached.mean()) if len(reached) else None,
        "l2_mean_ci95": mean_interval(reached.cpu(), 0.0, pixels[0].numel() ** 0.5) if len(reached) else None,
        "l2_median": float(reached.median()) if len(reached) else None,
    }
    protocol = {**asdict(attack), "attacked": "images classified rightly", "n_attacked": len(rows), "norm": "L2 in [0, 1] pixels"}
    result = subject.result("attack cw", protocol, values)
    everyone = np.full(len(labels), np.nan)
    everyone[rows.cpu().numpy()] = torch.where(success, norms, torch.full_like(norms, float("inf"))).cpu().numpy()
    stem = subject.run.save_result(
        result,
        subject.name("attack cw", *departures(attack, CarliniWagner()), *["float64"] * float64),
        l2=everyone,
        labels=labels.cpu().numpy(),
    ).stem
    path = out or subject.run.path / "figures" / f"{stem}.png"
    own = [((labels[rows] == k) & success).nonzero().flatten()[:1] for k in range(len(subject.card.class_names))]
    picked = torch.cat(own)[:SHOWN]
    names = subject.card.class_names
    picture = [(f"{names[int(labels[rows[i]])]} > {names[int(predicted[i])]}", _triple(pixels[rows[i]], found[i])) for i in picked.tolist()]
    if picture:
        save_grid(picture, path, f"{subject.card.recipe.name}: clean, change (enlarged to full range), adversarial", cell=64)
    pictures = [path] if picture else []
    if save:
        everywhere = pixels.clone()
        everywhere[rows] = found.to(pixels.dtype)
        pictures.append(_saved(save, everywhere, everyone, labels))
    return Measured(result, pictures)


def _triple(clean: Tensor, adversarial: Tensor) -> Tensor:
    """The three images of a row, in the model range."""
    change = adversarial - clean
    return (torch.stack([clean * 2 - 1, change / change.abs().max().clamp(min=1e-12), adversarial * 2 - 1])).float().cpu()


def audit(subject: Subject, *, transfer: Subject | None = None, out: Path | None = None, quiet: bool = True) -> Measured:
    """The whole suite at all radii, its worst case and its verdicts; resumes an interrupted audit of the same kind."""
    n_classes, focus = len(subject.card.class_names), audits.FOCUS
    model, pixels, labels = attacked(subject)
    suite = audits.suite(n_classes)
    plan = {name: (attack, audits.EPS) for name, attack in suite.items()} | {
        name: (attack, (focus,)) for name, attack in audits.AT_FOCUS.items()
    }
    fingerprint = _fingerprint(subject, transfer, plan)
    partial = subject.run.path / "results" / f"attack-audit-{fingerprint}"
    partial.mkdir(parents=True, exist_ok=True)
    fell: dict[str, Tensor] = {}
    with frozen(model), Voice("audit", len(plan) + (transfer is not None), quiet, unit="attacks") as voice:
        clean = pixel_logits(model, pixels).argmax(1) == labels
        zero = audits.zero_gradient_share(model, pixels, labels)
        for i, (name, (attack, eps)) in enumerate(plan.items()):
            kept = partial / f"{name}.npy"
            if kept.exists():
                fell[name] = torch.from_numpy(np.load(kept, allow_pickle=False))
            else:
                fell[name] = over_eps(attack, model, pixels, labels, eps)[0].cpu()
                _keep(kept, fell[name])
            voice.at(i + 1, f"{name} leaves {float((fell[name] > focus).double().mean()):.1%} at {said(focus)}")
        if transfer:
            fell["transfer"] = _transfer(model, transfer, pixels, labels).cpu()
            voice.at(len(plan) + 1)
    curves = audits.Curves(fell, audits.EPS)
    values = audits.audit_values(curves, zero, clean.cpu(), n_classes, focus)
    protocol = {
        "norm": "linf",
        "attacks": {name: asdict(attack) for name, (attack, _) in plan.items()},
        "left_out": [attack.name for attack in audits.SUITE if attack.name not in suite],
        "transfer_from": transfer.run.id if transfer else None,
        "worst_case": "of each image, over all attacks",
        **_protocol(False, 1.0),
    }
    result = subject.result("attack audit", protocol, values)
    arrays = {name.replace(" ", "_"): radius.numpy() for name, radius in fell.items()}
    stem = subject.run.save_result(
        result, subject.name("attack audit", *[f"transfer {transfer.run.id}"] if transfer else []), **arrays, labels=labels.cpu().numpy()
    ).stem
    for kept in partial.glob("*.npy"):
        kept.unlink()
    partial.rmdir()
    drawn = {
        name: {eps: values["attacks"][name][said(eps)]["accuracy"] for eps in audits.EPS}
        for name in [*suite, *(["transfer"] if transfer else [])]
    }
    worst = {eps: values["worst_case"][said(eps)]["accuracy"] for eps in audits.EPS}
    figure = plots.robustness(drawn, worst, values["clean_accuracy"], f"{subject.card.recipe.name}, n = {len(labels):,}")
    pictures = plots.save(figure, out or subject.run.path / "figures" / f"{stem}.png")
    warnings = [f"{verdict['name']}: {verdict['why']}" for verdict in values["verdicts"] if verdict["fired"]]
    return Measured(result, pictures, warnings)


def _transfer(model: PixelModel, other: Subject, pixels: Tensor, labels: Tensor) -> Tensor:
    """The radius at which each image falls to what a margin attack on the other model made of it."""
    surrogate = attacked(other)[0]
    clean = pixel_logits(model, pixels).argmax(1) == labels
    fell = torch.where(clean, float("inf"), 0.0).double()
    attack = Attack("pgd", "margin", throughout=True)
    with frozen(surrogate):
        for radius in audits.EPS:
            rows = ((fell == float("inf")) & (pixel_logits(surrogate, pixels).argmax(1) == labels)).nonzero().squeeze(1)
            _, adversarial, _ = over_eps(attack, surrogate, pixels[rows], labels[rows], [radius])
            fell[rows[audits.transferred(model, adversarial, pixels[rows], labels[rows], radius)]] = radius
    return fell


def _fingerprint(subject: Subject, transfer: Subject | None, plan: Mapping[str, Any]) -> str:
    """What an interrupted audit must agree in to be resumed."""
    about = [subject.run.id, subject.step, subject.split, subject.n, subject.seed, subject.dataset.title, transfer and transfer.run.id]
    return sha256(json.dumps([*about, {name: [asdict(attack), eps] for name, (attack, eps) in plan.items()}]).encode()).hexdigest()[:12]


def _keep(path: Path, fell: Tensor) -> None:
    """Write one attack's outcome whole or not at all."""
    with replacing(path) as hidden:
        np.save(hidden, fell.numpy(), allow_pickle=False)
