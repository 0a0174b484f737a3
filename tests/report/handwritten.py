"""Run directories written by hand: their figures are known before anything reads them."""

from pathlib import Path
from typing import Any

import numpy as np

from gmmcli.checkpoint import Checkpoint, Part
from gmmcli.model_card import ModelCard
from gmmcli.recipe import Recipe
from gmmcli.run import Run

GEN, DIS, SOFTMAX, JEM, JOINT = (f"digits_{kind}" for kind in ("gen", "dis", "softmax", "jem", "joint"))


def write(folder: Path, recipe: str = GEN, *overrides: str, seed: int = 1, status: str = "finished", **facts: Any) -> Run:
    """A run of a shipped recipe that took 90 seconds, with neither weights nor results."""
    chosen = Recipe.load(recipe, (*overrides, f"seed={seed}"))
    run = Run(folder / f"2026-01-01T{len(list(folder.glob('*'))):06}Z-{chosen.name}")
    run.path.mkdir(parents=True)
    (run.path / "recipe.toml").write_text(chosen.dumps())
    run.describe(status=status, wall_time_s=90.0, **facts)
    return run


def save(run: Run, command: str, values: dict[str, Any], name: str = "", arrays: dict[str, np.ndarray] | None = None, **about: Any) -> Path:
    """One result, by default about the 100 test images at step 10; ``arrays`` lie beside it."""
    head = {"schema": 1, "command": command, "run": run.id, "step": 10, "dataset": "digits", "split": "test", "n": 100, "protocol": {}}
    return run.save_result(head | {"values": values} | about, name, **(arrays or {}))


def scored(run: Run, accuracy: float, within: float = 0.0, **about: Any) -> Run:
    """The run with its test accuracy, known to this much either way."""
    values = {"accuracy": accuracy, "ci95": [accuracy - within, accuracy + within], "nll": 1 - accuracy, "brier": 1.5 * (1 - accuracy)}
    save(run, "eval accuracy", values, **about)
    return run


def models(folder: Path, **accuracies: tuple[float, float]) -> list[Run]:
    """A run of each recipe, named without its dataset, with its accuracy and how far it is known."""
    return [scored(write(folder, f"digits_{name}"), *known) for name, known in accuracies.items()]


def calibrated(run: Run, gamma: float, temperature: float, validation: tuple[float, float] = (0.0, 0.0)) -> Run:
    """The run with an ECE at its own scale and at a fitted temperature, on test and on validation images."""
    eces = {"unit": (0.5, 0.5), "gamma": (gamma, validation[0]), "temperature": (temperature, validation[1])}
    variants = {
        name: {"scale": 2.0, "ece": ece, "ece_ci95": [ece / 2, 2 * ece], "validation_ece": held_out, "bins": [{"low": 0.0, "n": 0}]}
        for name, (ece, held_out) in eces.items()
    }
    save(run, "eval calibrate", {"ece": gamma, "variants": variants})
    return run


def detected(run: Run, **scores: dict[str, float]) -> Run:
    """The run with the AUROC of each score on each other set: ``detected(run, svhn={"log_px": 0.9})``."""
    values = {
        name: {score: {"auroc": auroc, "auroc_ci95": [auroc, auroc]} for score, auroc in some.items()} for name, some in scores.items()
    }
    save(run, "eval ood", values)
    return run


def audited(run: Run, **worst: float) -> Run:
    """The run with its worst case at so many 255ths: ``audited(run, at8=0.25)``."""
    rows = {f"{name.removeprefix('at')}/255": {"accuracy": accuracy, "ci95": [accuracy, accuracy]} for name, accuracy in worst.items()}
    weaker = {eps: {"accuracy": row["accuracy"] + 0.1} for eps, row in rows.items()}
    attacks = {"fgsm-ce": weaker, "pgd-margin x2 steps": {"8/255": {"accuracy": 0.2}}}
    values = {"clean_accuracy": 0.9, "worst_case": rows, "attacks": attacks, "sentence": "Believe it."}
    save(run, "attack audit", values, n=50)
    return run


def attacked(run: Run, kind: str, loss: str, steps: int = 40, **curve: float) -> Run:
    """The run under one attack, as a result of its own: ``attacked(run, "pgd", "ce", at4=0.5)``."""
    radii = {int(name.removeprefix("at")): accuracy for name, accuracy in curve.items()}
    rows = {f"{at}/255": {"eps": at / 255, "accuracy": accuracy, "ci95": [accuracy, accuracy]} for at, accuracy in radii.items()}
    name = f"attack {kind} {loss} {steps} {' '.join(curve)}"
    protocol = {"loss": loss, "norm": "linf", "steps": steps, "restarts": 1}
    save(run, f"attack {kind}", {"clean_accuracy": 0.9, "eps": rows}, name, protocol=protocol)
    return run


def checkpoint(run: Run, names: tuple[str, ...], shape: tuple[int, int, int] = (1, 8, 8)) -> Run:
    """The run with a checkpoint at step 10 whose card names these classes; it has no weights."""
    card = ModelCard(run.recipe, names, shape, gamma2=1.0)
    Checkpoint.save(run.path / "checkpoints", 10, {"model": Part({}, card.dump())}, {"step": 10, "best_step": 10})
    return run
