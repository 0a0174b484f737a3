"""The training loop, top to bottom."""

import resource
import time
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from gmmcli.core.buffer import decode
from gmmcli.core.classifier import Classifier
from gmmcli.core.energy import joint_energy, shared_variance
from gmmcli.core.samplers import descent_share
from gmmcli.data.dataset import Split
from gmmcli.data.pictures import save_grid
from gmmcli.errors import DivergedError, StoppedError
from gmmcli.progress import Voice
from gmmcli.run import Run
from gmmcli.signals import StopSignals
from gmmcli.train.guard import GuardedStep
from gmmcli.train.health import STILL, ChainWatch
from gmmcli.train.setup import Setup, StepReport, training_step
from gmmcli.train.state import TrainState
from gmmcli.train.validate import Distance, logits, validate

PREVIEW_ROWS, PREVIEW_COLUMNS = 20, 10
AFTER_A_SWITCH = 7  # steps that are logged one by one: what a switch of stages does to energies shows there (Table 10)


@dataclass(frozen=True)
class Job:
    """One call of ``train``: what is trained, where it is written, and who may speak."""

    setup: Setup
    run: Run
    stop: StopSignals
    voice: Voice
    distance: Distance | None


def train(setup: Setup, run: Run, *, resume: bool = False, quiet: bool = False, distance: Distance | None = None) -> TrainState:
    """Train a run to its end, from its newest checkpoint when resuming.

    Args:
        setup: what is trained.
        run: where it is written.
        resume: start from the newest checkpoint.
        quiet: warnings only.
        distance: of samples to the validation images; a recipe with ``log.validate_samples`` needs it.

    Raises:
        DivergedError: the loss ran away, and the recipe says stop or its rollbacks are spent; the last good checkpoint stays.
        StoppedError: SIGINT or SIGTERM arrived; the state is saved.
        CheckpointError: the newest checkpoint is damaged.
    """
    if setup.recipe.validates_samples and distance is None:
        raise ValueError("log.validate_samples needs a distance")
    state = setup.restored(run.checkpoint()) if resume and run.checkpoints else setup.initial_state()
    if resume:
        run.forget_after(state.step)
    started, spent = time.monotonic(), run.provenance.get("wall_time_s", 0.0)
    run.describe(status="running", device=_name(setup.device))
    status = "failed"
    with StopSignals() as stop, Voice(run.recipe.name, setup.n_steps, quiet) as voice:
        for warning in setup.warnings:
            voice.warn(f"gmmc: {warning}")
        try:
            state = _to_the_end(Job(setup, run, stop, voice, distance), state)
            status = "finished"
        except DivergedError:
            status = "diverged"
            raise
        except StoppedError:
            status = "interrupted"
            raise
        finally:
            wall_time = round(spent + time.monotonic() - started, 1)
            run.describe(status=status, wall_time_s=wall_time, peak_memory_mb=_peak_memory(setup.device))
    return state


def _to_the_end(job: Job, state: TrainState) -> TrainState:
    """Advance until all steps are done, through as many divergences as the recipe forgives, then finish."""
    guard = job.run.recipe.guard
    while state.step < job.setup.n_steps:
        try:
            _advance(job, state)
        except DivergedError as error:
            if guard.on_divergence == "stop" or state.rollbacks >= guard.max_rollbacks:
                job.run.log({"step": state.step, "event": "diverged", "reason": error.message})
                raise
            state = _rolled_back(job, state, error.message)
    _finish(job, state)
    return state


def _rolled_back(job: Job, diverged: TrainState, reason: str) -> TrainState:
    """Return to the last good state, with other randomness and a lower learning rate from there on.

    A state from which training comes no further than a checkpoint's interval beyond the last divergence, at a lower rate at that,
    was not good: then further back.
    """
    again = diverged.rollbacks > 0 and diverged.step <= diverged.diverged_at + job.run.recipe.log.checkpoint_every
    good = [c for c in job.run.checkpoints if not again or c.step < diverged.returned_to]
    state = job.setup.restored(good[-1]) if good else job.setup.initial_state()
    for checkpoint in job.run.checkpoints:
        if checkpoint.step > state.step:
            checkpoint.remove()
    state.rollbacks, state.diverged_at, state.returned_to = diverged.rollbacks + 1, diverged.step, state.step
    state.save(job.run, job.setup.dataset)  # a resume must know of it
    event = {
        "step": diverged.step,
        "event": "rollback",
        "to_step": state.step,
        "rollbacks": state.rollbacks,
        "lr_factor": job.run.recipe.guard.lr_factor**state.rollbacks,
        "reason": reason,
    }
    job.run.log(event)
    job.voice.warn(f"gmmc: {reason}; back to step {state.step} with other chains and the learning rate x {event['lr_factor']:g}")
    return state


def _advance(job: Job, state: TrainState) -> None:
    """Take the steps that are left, and between them log, preview, validate, save and listen."""
    setup, log = job.setup, job.run.recipe.log
    update = GuardedStep(state.optimizer, job.run.recipe.guard.max_loss, setup.device)
    rate = _Rate(state.step, job.run.recipe.data.batch_size)
    marginal = any(stage.objective.marginal for stage in job.run.recipe.stages)
    watch = ChainWatch(never_negative=state.model.has_means and not marginal)
    near_a_switch = {switch + i for switch in setup.switches for i in range(AFTER_A_SWITCH + 1)}
    while state.step < setup.n_steps:
        report = training_step(setup, state, update)
        step, last = state.step, state.step == setup.n_steps
        logging, previewing, validating, saving = (
            _due(step, every, last) for every in (log.every, log.preview_every, log.validate_every, log.checkpoint_every)
        )
        asking = setup.device.type == "cpu" or logging or previewing or validating or saving or bool(job.stop.received)
        diverged = asking and not update.healthy
        if logging or diverged or step in near_a_switch:
            line = measure(setup, state, report) | {"grad_norm": float(update.grad_norm), "images_per_sec": rate(step)}
            job.run.log({key: value if isfinite(value) else None for key, value in line.items()})
            job.voice.at(step, _summary(line))
            if logging and (complaint := watch(line)):
                job.run.log({"step": step, "event": "chains", "reason": complaint})
                job.voice.warn(f"gmmc: step {step}: {complaint}")
        if diverged:
            update.raise_if_diverged(step)
        if previewing:
            preview(setup, state, job.run.path / "samples" / f"preview-{step:08d}.png")
        improved = validating and validate(setup, state, job.run, report.stage, job.distance)
        if (saving or improved or job.stop.received) and not last:  # the last one waits for its gamma^2
            state.save(job.run, setup.dataset)
        if job.stop.received and not last:
            raise StoppedError(
                f"{job.stop.received} after step {step}; everything is saved", f"resume with: gmmc train --resume --run {job.run.path}"
            )


def _due(step: int, every: int, last: bool) -> bool:
    return every > 0 and (last or step % every == 0)


class _Rate:
    """Images per second since the last time it was asked."""

    def __init__(self, step: int, batch_size: int) -> None:
        self.step, self.batch_size, self.since = step, batch_size, time.monotonic()

    def __call__(self, step: int) -> float:
        images, now = (step - self.step) * self.batch_size, time.monotonic()
        rate = images / (now - self.since)
        self.step, self.since = step, now
        return round(rate, 1)


def measure(setup: Setup, state: TrainState, report: StepReport) -> dict[str, Any]:
    """One line for metrics.jsonl (docs/metrics.md); the one place where a plain step waits for the device."""
    line: dict[str, Any] = {
        "step": state.step,
        "epoch": round(state.step / setup.loader.steps_per_epoch, 3),
        "stage": setup.recipe.stages.index(report.stage),
        "lr": report.learning_rate,
        "loss": float(report.loss.total.detach()),
    }
    line |= {name: float(value) for name, value in report.loss.parts.items()}
    if report.negatives is not None and state.chains is not None:
        moved = report.negatives.moved
        line |= {"energy_start": float(report.negatives.trace[0].mean()), "moved": float(moved.mean())}
        line["still"] = float((moved < STILL).float().mean())
        if len(report.negatives.trace) > 1:
            line["descending"] = float(descent_share(report.negatives.trace))
    return line


def _summary(line: dict[str, Any]) -> str:
    said = {"loss": "loss", "energy_data": "E real", "energy_model": "E sampled", "accuracy": "accuracy"}
    return ", ".join(f"{text} {line[key]:.3g}" for key, text in said.items() if key in line)


def _finish(job: Job, state: TrainState) -> None:
    """Give the last and the best model their gamma^2, and save them."""
    state.published.gamma2 = estimate_gamma2(state.published, job.setup.loader.split)
    state.save(job.run, job.setup.dataset)
    checkpoint = job.run.checkpoint(best=True)
    if checkpoint.step != state.step:
        best = job.setup.restored(checkpoint)
        best.published.gamma2 = estimate_gamma2(best.published, job.setup.loader.split)
        best.save(job.run, job.setup.dataset)


def estimate_gamma2(model: Classifier, split: Split) -> float:
    """Estimate the shared variance on a training split (Sec. 3.1); 1 for a head without Gaussians."""
    if not model.has_means:
        return 1.0
    return float(shared_variance(joint_energy(logits(model, split), split.labels), model.means.shape[1]))


def preview(setup: Setup, state: TrainState, path: Path) -> None:
    """Draw the first chains of each class as they stand in the buffer; nothing without chains, and no names where chains have no class."""
    if state.chains is None:
        return
    images = decode(state.chains.buffer.images[:PREVIEW_ROWS, :PREVIEW_COLUMNS])
    named = not setup.recipe.chains.classless
    rows = list(zip((name if named else "" for name in setup.dataset.class_names), images, strict=False))
    save_grid(rows, path, f"{setup.recipe.name}: chains after {state.step} training steps")


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _peak_memory(device: torch.device) -> int:
    """The highest memory use so far, in MiB: the device's, or on a cpu the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) // 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10
