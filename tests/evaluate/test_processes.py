"""Evaluations in several processes: the figures of one, written once."""

import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from digits import saved
from toys import Toy

from gmmcli.attacks.attack import Attack
from gmmcli.attacks.carlini import CarliniWagner
from gmmcli.core.model import Model
from gmmcli.core.wide_resnet import WideResNet
from gmmcli.distributed import barrier, world
from gmmcli.errors import DivergedError, RunError
from gmmcli.evaluate.audit import audit
from gmmcli.evaluate.carlini import carlini
from gmmcli.evaluate.classification import accuracy, calibrate
from gmmcli.evaluate.detection import ood
from gmmcli.evaluate.generation import Generation, generate
from gmmcli.evaluate.robustness import robust_accuracy
from gmmcli.evaluate.samples import Draw, spread
from gmmcli.evaluate.subject import Subject
from gmmcli.evaluate.tsne import Embedding, tsne
from gmmcli.metrics.features.spaces import run_space
from gmmcli.metrics.judge import ModelJudge, PixelJudge
from gmmcli.metrics.outputs import outputs
from gmmcli.run import Run
from ranks import on_ranks


def close(one: Any, other: Any) -> bool:
    """Whether two results are the same but for rounding."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(close, one, other))
    return math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-5) if isinstance(one, float) else one == other


def arrays(tensors: tuple[torch.Tensor | None, ...]) -> list[Any]:
    return [None if tensor is None else tensor.numpy() for tensor in tensors]


def _outputs(gamma2: float | None) -> list[Any]:
    model = Model(WideResNet(depth=10, width=1, norm="batch", init="kaiming")).build(4, 1, seed=3)
    raw = torch.randint(256, (11, 1, 8, 8), generator=torch.Generator().manual_seed(1)).byte()
    seen: list[int] = []
    return [
        arrays(outputs(model, raw, gamma2, seen.append)),
        seen,
        arrays(outputs(model, raw[:2], gamma2)),  # fewer images than processes
    ]


@pytest.mark.parametrize("gamma2", [None, 5.0])
def test_each_process_takes_its_share_of_one_pass_and_all_know_the_whole(gamma2: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmmcli.metrics.outputs.batch_size", lambda model, like: 2)
    alone, progress, few = _outputs(gamma2)
    assert progress == [2, 4, 6, 8, 10, 11]
    for parts, told, again in on_ranks(3, _outputs, gamma2):
        assert told[0] == 6 and told[-1] >= 9
        for found, expected in ((parts, alone), (again, few)):
            for one, other in zip(found, expected, strict=True):
                assert (one is None) is (other is None) is (gamma2 is None) or one.dtype == other.dtype
                assert one is None or torch.allclose(*map(torch.from_numpy, (one, other)), rtol=1e-5, atol=1e-4)


def _diverged() -> None:
    model = Model(WideResNet(depth=10, width=1, init="kaiming")).build(4, 1, seed=3)
    with torch.no_grad():
        model.head.means.mul_(torch.nan)
    outputs(model, torch.zeros(5, 1, 8, 8, dtype=torch.uint8))


def test_logits_that_are_not_finite_end_all_processes_with_the_number_of_all_images() -> None:
    with pytest.raises(DivergedError, match="not finite for 5 of 5 images"):
        on_ranks(2, _diverged)


def _samples(path: Path) -> list[Any]:
    run = Run(path)
    return [Draw(steps=3)(run, run.model(), spread(range(10), n)).images.numpy() for n in (23, 3)]


def test_fresh_samples_are_those_of_one_process_to_the_last_bit(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmmcli.evaluate.samples.CHUNK", 4)  # six chunks, and one for three processes
    alone = _samples(trained.path)
    for found in on_ranks(3, _samples, trained.path):
        assert all((one == other).all() for one, other in zip(found, alone, strict=True))


def _classification(subject: Subject) -> list[dict[str, Any]]:
    return [accuracy(subject).result, calibrate(subject).result]


def _detection(subject: Subject) -> list[dict[str, Any]]:
    return [ood(subject, ["interp", "uniform"], ["all"]).result]


def _generation(subject: Subject) -> list[dict[str, Any]]:
    space, judge = run_space("itself", subject.model), ModelJudge(subject.model, "itself", "itself")
    fresh = Generation(space, judge, Draw("noise", steps=2), n=30, save_stats=subject.run.path / "results" / "stats.npz")
    stored = Generation(space, PixelJudge(subject.dataset.train, 1), Draw("buffer"), n=50, top_share=0.5)
    return [generate(subject, settings).result for settings in (fresh, stored)]


def _embedding(subject: Subject) -> list[dict[str, Any]]:
    return [one.result for one in tsne([subject], Embedding(per_class=1))]


def _measured(path: Path, verb: Callable[[Subject], list[dict[str, Any]]]) -> tuple[list[dict[str, Any]], list[str]]:
    return _recorded(Subject.open(path), verb)


def _recorded(subject: Subject, verb: Callable[[Subject], list[dict[str, Any]]]) -> tuple[list[dict[str, Any]], list[str]]:
    """The results of a verb, and the files that this process has written."""
    written: list[str] = []
    sys.addaudithook(lambda event, about: written.append(Path(about[1]).name) if event == "os.rename" else None)
    return verb(subject), written


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("verb", [_classification, _detection, _generation, _embedding])
def test_figures_are_those_of_one_process_and_the_main_one_writes_them(
    verb: Callable[[Subject], list[dict[str, Any]]], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gmmcli.evaluate.tsne.embed", lambda features, seed: features[:, :2].double().numpy())
    copy = Run(Path(shutil.copytree(run.path, tmp_path / "copy" / run.id)))
    alone = verb(Subject.open(run.path))
    (main, written), *others = on_ranks(2, _measured, copy.path, verb)
    assert all(close(found, alone) for found in (main, *(results for results, _ in others)))
    assert all(files == [] for _, files in others)
    made = {path.relative_to(run.path): path for path in run.path.glob("[rf]*s/*")}  # results and figures
    assert {path.relative_to(copy.path) for path in copy.path.glob("[rf]*s/*")} == set(made)
    assert len(written) == len(set(written)) and {path.name for path in made if path.suffix in (".json", ".npz", ".csv")} <= set(written)
    for path in made.values():
        if path.suffix == ".npz":
            one, other = saved(run, path.stem), saved(copy, path.stem)
            assert all(close(one[name].tolist(), other[name].tolist()) for name in one.keys() | other.keys())


def _opened(path: Path) -> None:
    if world().rank == 1:
        shutil.copytree(path, path := path.with_name("another"))
    Subject.open(path)


def test_processes_that_find_different_checkpoints_measure_nothing(run: Run) -> None:
    with pytest.raises(RunError, match=f"not all processes find the same checkpoint: the main one has run {run.id}, step 20"):
        on_ranks(2, _opened, run.path)


EPS = (4 / 255, 8 / 255)


def _attacks(subject: Subject) -> list[dict[str, Any]]:
    folder = subject.run.path / "results"
    folder.mkdir(exist_ok=True)
    pgd = robust_accuracy(subject, Attack("pgd", "margin", steps=3), EPS, save_to=folder / "pgd.npz")
    cw = carlini(subject, CarliniWagner(steps=5, searches=3), save_to=folder / "cw.npz")
    return [pgd.result, cw.result, audit(subject).result]


def _interrupted(subject: Subject) -> list[dict[str, Any]]:
    """An audit goes on from the files of the main process, which alone may have a disk with them."""
    with pytest.MonkeyPatch.context() as broken:
        broken.setattr("gmmcli.evaluate.audit.rmtree", lambda folder: None)
        first = audit(subject).result
    (kept,) = (subject.run.path / "results").glob("attack-audit-*/")
    if world().is_main:
        (kept / "pgd-margin.npy").unlink()
    barrier()
    with pytest.MonkeyPatch.context() as hidden:
        if not world().is_main:
            hidden.setattr(Path, "exists", lambda path: False)
        again = audit(subject).result
    assert again == first
    assert not (world().is_main and kept.exists())
    return [again]


@pytest.mark.parametrize("verb", [_attacks, _interrupted])
def test_attacks_find_what_one_process_finds(
    verb: Callable[[Subject], list[dict[str, Any]]], toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gmmcli.attacks.within_ball.CHUNK", 3)
    suite = (Attack("pgd", "ce", steps=2), Attack("pgd", "margin", steps=2), Attack("square", "margin", steps=20))
    monkeypatch.setattr("gmmcli.attacks.audit.SUITE", suite)
    monkeypatch.setattr("gmmcli.attacks.audit.AT_FOCUS", {"pgd-margin x2 steps": Attack("pgd", "margin", steps=4)})
    monkeypatch.setattr("gmmcli.attacks.audit.EPS", EPS)
    monkeypatch.setattr("gmmcli.evaluate.plots._draw", lambda figure, *paths: [path.touch() for path in paths])
    alone, subject = toy(name="alone"), toy(name="several")
    expected = verb(alone)
    (main, written), (other, nothing) = on_ranks(2, _recorded, subject, verb)
    assert nothing == [] and written
    assert [found | {"run": "alone"} for found in main] == [found | {"run": "alone"} for found in other] == expected
    files = {path.relative_to(alone.run.path) for path in alone.run.path.rglob("*") if path.is_file()}
    assert {path.relative_to(subject.run.path) for path in subject.run.path.rglob("*") if path.is_file()} == files
