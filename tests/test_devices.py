"""Device discipline without a GPU: everything that runs on one runs on a pretend device, with the results of the CPU (``pretend.py``)."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from digits import run, trained, undrawn
from torch import Tensor
from trainings import SMALL, Small, write_digits

from gmmcli.attacks.algorithms import configured
from gmmcli.attacks.audit import zero_gradients
from gmmcli.attacks.carlini import CarliniWagner
from gmmcli.core.classifier import frozen
from gmmcli.evaluate.carlini import carlini
from gmmcli.evaluate.classification import accuracy, calibrate
from gmmcli.evaluate.detection import ood
from gmmcli.evaluate.generation import Generation, generate
from gmmcli.evaluate.robustness import attacked, robust_accuracy
from gmmcli.evaluate.samples import Draw, spread
from gmmcli.evaluate.subject import Subject
from gmmcli.metrics.features.spaces import run_space
from gmmcli.metrics.judge import PixelJudge
from gmmcli.recipe import Recipe
from gmmcli.rng import stream
from gmmcli.run import Run
from gmmcli.train.guard import GuardedStep
from gmmcli.train.log import measure
from gmmcli.train.setup import Setup
from gmmcli.train.step import training_step
from gmmcli.train.validate import validate
from pretend import DEVICE, Accelerator, accelerator

__all__ = ["run", "trained", "undrawn"]

AVERAGE, SAM, BATCH_NORM = "optim.ema_decay=0.9", "optim.sam_rho=0.1", "model.backbone.norm=batch"
CLASS_GAUSSIAN, CLEAN = "chains.start={kind='class-gaussian',rank=8}", "stages.0.objective.clean_positive=true"
TRAININGS = {
    "plain": (AVERAGE, CLASS_GAUSSIAN, CLEAN, "chains.dtype=uint8", "data.crop_padding=1", "data.flip=true"),
    "sharpness-aware": (SAM, "optim.sam_adaptive=true", AVERAGE, "chains.sampler={kind='fixed-length',n_steps=2,noise_std=0.01}"),
    "frozen norm": (BATCH_NORM, "stages.0.freeze_norm=true", AVERAGE, CLEAN, "chains.target.kind=injected-latent"),
    "separate norm": (BATCH_NORM, "stages.0.objective.separate_norm=true", CLEAN, SAM),
    "another optimiser": (
        "stages=[{epochs=1,objective={kind='center-regression'}},{epochs=1,ramp_epochs=1,optim={kind='sgd',ema_decay=0.9},"
        "objective={kind='contrastive-divergence',margin=2.0}}]",
    ),
    "marginal": ("stages=[{epochs=1,objective={kind='jem',l2=0.1}}]", "model.head.kind=linear", "chains.target.kind=marginal"),
    "relabelled": (
        "chains.relabel=true",
        "model.backbone.spectral_norm=true",
        "chains.target.kind=conditional",
        "stages.0.objective.l2=0.1",
    ),
    "discriminative": ("stages=[{epochs=1,objective={kind='cross-entropy'}}]", "model.head.kind=linear", "model.backbone.norm=group"),
}


@pytest.fixture
def small(tmp_path: Path) -> Small:
    path = write_digits(tmp_path / "digits.npz")
    return lambda *overrides: Recipe.loads(SMALL.format(path=path), overrides=overrides)


@pytest.fixture
def there() -> Iterator[Accelerator]:
    with accelerator() as watched:
        yield watched


def train(recipe: Recipe, watched: Accelerator | None = None) -> tuple[list[Tensor], list[str]]:
    """Two steps around the end of an epoch, which in "another optimiser" ends a stage: what they leave, and where the host waited."""
    setup = Setup.prepare(recipe)
    state = setup.initial_state()
    state.step = setup.loader.steps_per_epoch - 1
    update = GuardedStep(state.optimizer, setup.recipe.guard.max_loss, setup.device)
    before = len(watched.waits) if watched else 0
    reports = [training_step(setup, state, update) for _ in range(2)]
    waits = watched.waits[before:] if watched else []
    left = [*state.model.state_dict().values(), *(state.average.state_dict().values() if state.average else ())]
    left += [report.loss.total for report in reports]
    left += [moment for moments in state.optimizer.state.values() for moment in moments.values()]
    if state.chains:
        left.append(state.chains.buffer.images)
    return [tensor.detach().cpu() for tensor in left], waits


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_step_stays_on_its_device_and_never_lets_the_host_wait(name: str, small: Small) -> None:
    recipe = small(*TRAININGS[name])
    with accelerator() as watched:
        found, waits = train(recipe, watched)
    expected, _ = train(recipe)
    assert waits == []
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)  # group norm rounds otherwise, all else is equal bit for bit


def test_a_resumed_training_logs_validates_and_estimates_gamma2_on_the_device(there: Accelerator, run: Run) -> None:
    setup = Setup.prepare(run.recipe)
    state = setup.restored(run.checkpoint())
    report = training_step(setup, state, GuardedStep(state.optimizer, setup.recipe.guard.max_loss, setup.device))
    assert {"loss", "energy_data", "moved", "still", "descending"} <= measure(setup, state, report).keys()
    assert validate(setup, state, run, report.stage, None)
    state.estimate_gamma2(setup.loader.split)
    assert state.model.means.device == DEVICE
    assert state.model.gamma2 is not None and 0 < state.model.gamma2 < torch.inf


def classified(subject: Subject) -> Any:
    return [accuracy(subject).result["values"], calibrate(subject).result["values"]]


def detected(subject: Subject) -> Any:
    return ood(subject, ["uniform", "interp"], ["all"]).result["values"]


def drawn(subject: Subject) -> Any:
    return Draw(steps=3)(subject.run, subject.model, spread(range(10), 10)).images.tolist()


def compared(subject: Subject) -> Any:
    settings = Generation(run_space("own", subject.model), PixelJudge(subject.dataset.train, 1), Draw("noise", steps=2), n=20)
    values = generate(subject, settings).result["values"]
    return json.loads(
        json.dumps(values), parse_float=lambda digits: float(f"{float(digits):.6g}")
    )  # eigenvalues differ in their last digits


def smallest_change(subject: Subject) -> Any:
    return carlini(subject, CarliniWagner(steps=4, searches=2)).result["values"]


def robust(kind: str, loss: str) -> Callable[[Subject], Any]:
    return lambda subject: robust_accuracy(subject, configured(kind, loss=loss, steps=2), [16 / 255]).result["values"]


def without_gradient(subject: Subject) -> Any:
    model, pixels, labels = attacked(subject)
    with frozen(model):
        return zero_gradients(model, pixels, labels).tolist()


MEASURED = {
    "accuracy and calibration": classified,
    "outliers": detected,
    "sampling": drawn,
    "samples compared": compared,
    "fgsm": robust("fgsm", "ce-scaled"),
    "pgd": robust("pgd", "margin"),
    "pgd, targeted": robust("pgd", "dlr-targeted"),
    "apgd": robust("apgd", "dlr"),  # torchattacks' Square is left out: it indexes by tensors of the CPU, which a GPU lets pass
    "carlini and wagner": smallest_change,
    "zero gradients": without_gradient,
}


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", MEASURED)
def test_what_is_measured_on_the_device_is_what_the_cpu_measures(name: str, run: Run) -> None:
    expected = MEASURED[name](Subject.open(run.path, n=20))
    with accelerator():
        subject = Subject.open(run.path, n=20, device=DEVICE)
        assert subject.device == DEVICE
        assert MEASURED[name](subject) == expected


def there_and_here() -> tuple[Tensor, Tensor]:
    return torch.ones(3, 2, device=DEVICE), torch.ones(3, 2)


MIXED: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "a stray .cpu()": lambda there, here: there + there.cpu(),
    "a tensor of the CPU": lambda there, here: there * here,
    "a host scalar": lambda there, here: there * torch.tensor(2.0),
    "an index of the CPU": lambda there, here: there[torch.tensor([0, 2])],
    "a mask of the CPU": lambda there, here: here[there > 0],
    "a part of a list": lambda there, here: torch.cat([there, here]),
    "a result of the CPU": lambda there, here: here.add_(there),
    "a default device": lambda there, here: torch.where(there > 0, there, torch.zeros(3, 2)),
    "weights left behind": lambda there, here: torch.nn.Linear(2, 2)(there),
}


@pytest.mark.parametrize("name", MIXED)
def test_tensors_of_two_devices_do_not_mix(name: str, there: Accelerator) -> None:
    with pytest.raises(RuntimeError, match=r"lazy|device"):
        MIXED[name](*there_and_here())


WAITS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "a value": lambda there, here: there.sum().item(),
    "a condition": lambda there, here: bool(there.sum() > 0),
    "a format": lambda there, here: f"{float(there.mean()):.3f}",
    "a copy to the host": lambda there, here: there.cpu(),
    "a copy into the host's": lambda there, here: here.copy_(there),
    "a list": lambda there, here: there.tolist(),
    "a copy to the device": lambda there, here: here.to(DEVICE),
    "a new tensor of values": lambda there, here: torch.tensor([1.0, 2.0], device=DEVICE),
    "a mask": lambda there, here: there[there > 0],
    "an assignment by a mask": lambda there, here: there.__setitem__(there[:, 0] > 0, 0.0),
    "positions": lambda there, here: there.nonzero(),
    "a comparison": lambda there, here: torch.equal(there, there),
    "repeats": lambda there, here: there.repeat_interleave(torch.ones(3, dtype=torch.long, device=DEVICE), 0),
}


@pytest.mark.parametrize("name", WAITS)
def test_a_wait_of_the_host_is_noticed_with_its_line(name: str, there: Accelerator) -> None:
    tensors = there_and_here()
    WAITS[name](*tensors)
    assert there.waits
    assert all(f"{__file__}:" in wait for wait in there.waits)


def test_work_on_the_device_alone_makes_nobody_wait(there: Accelerator) -> None:
    one, here = there_and_here()
    x = one.clone().requires_grad_()
    (2.0 * x @ torch.eye(2, device=DEVICE)).square().mean().backward()
    assert x.grad is not None
    assert x.grad.device == x.device == DEVICE
    one[torch.arange(2, device=DEVICE)] = 0.5
    one += torch.rand(one.shape, generator=stream(DEVICE, 1), device=DEVICE)
    here.to(DEVICE, non_blocking=True)
    assert there.waits == []
    assert torch.equal(x.grad.cpu(), torch.full((3, 2), 8 / 6))


def test_a_generator_draws_on_its_own_device_alone(there: Accelerator) -> None:
    with pytest.raises(RuntimeError, match="expected a 'lazy' generator, but found 'cpu'"):
        torch.rand(2, generator=stream("cpu", 1), device=DEVICE)
    with pytest.raises(RuntimeError, match="expected a 'cpu' generator, but found 'lazy'"):
        torch.rand(2, generator=stream(DEVICE, 1))
    with pytest.raises(RuntimeError, match="expected a 'lazy' generator, but found 'cpu'"):
        torch.zeros(2, device=DEVICE).normal_(generator=stream("cpu", 1))


PLANTED = {
    "gmmcli.train.step.set_mode": lambda model, stage: float(next(model.parameters()).detach().sum()),
    "gmmcli.core.chains.displacement": lambda before, after: (after - before).cpu().square().mean((1, 2, 3)).sqrt().to(DEVICE),
}


@pytest.mark.parametrize("where", PLANTED)
def test_a_wait_planted_in_a_training_step_is_found(where: str, small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(where, PLANTED[where])
    with accelerator() as watched:
        _, waits = train(small(), watched)
    assert waits
    assert all(__file__ in wait for wait in waits)


def test_an_index_of_the_cpu_planted_in_the_buffer_is_found(small: Small, monkeypatch: pytest.MonkeyPatch, there: Accelerator) -> None:
    monkeypatch.setattr("gmmcli.core.buffer.ReplayBuffer.draw", lambda self, labels, generator: self.images[labels, labels.cpu()])
    with pytest.raises(RuntimeError, match="same device"):
        train(small(), there)
