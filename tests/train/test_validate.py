"""Validation: the criterion of the best checkpoint, the samples it is asked about, and what a resume knows of it."""

from collections.abc import Callable, Sequence
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
import torch
from trainings import Begin, contents, cut_at

from gmmcli.checkpoint import Checkpoint, Part
from gmmcli.core.chains import fresh_samples
from gmmcli.core.targets import Conditional
from gmmcli.rng import stream
from gmmcli.run import Run
from gmmcli.train.loop import train
from gmmcli.train.setup import Setup
from gmmcli.train.state import TrainState
from gmmcli.train.validate import Distance, rank, validate
from gmmcli.types import RawImages, to_bytes

SAMPLER = 'chains.sampler={kind="sgld",n_steps=2,step_size=0.1}'
SAMPLING = (SAMPLER, "chains.fresh_steps=4", "log.validate_samples=3", "log.validate_every=1", "log.checkpoint_every=1")
JOINT = """stages=[{epochs=1,objective={kind="center-regression"}},
                   {epochs=1,objective={kind="contrastive-divergence",margin=2.0}}]"""
Script = Callable[..., list[bool]]


def darkness(samples: RawImages) -> float:
    return float(samples.double().mean())


def trained(setup: Setup, run: Run, distance: Callable[[RawImages], float] = darkness, resume: bool = False) -> Run:
    train(setup, run, resume=resume, quiet=True, distance=Distance("darkness", distance))
    return run


def validations(run: Run) -> list[dict[str, Any]]:
    return [line for line in run.metrics() if "validation_accuracy" in line]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """Validate once for each pair of accuracy and distance; return which were the best so far."""

    def script(setup: Setup, run: Run, state: TrainState, pairs: Sequence[tuple[float, float]], space: str = "scripted") -> list[bool]:
        improved, labels = [], setup.validation.labels
        for accuracy, distance in pairs:
            wrong = torch.arange(len(labels)) >= round(accuracy * len(labels))
            logits = torch.nn.functional.one_hot((labels + wrong) % 10, 10)
            monkeypatch.setattr("gmmcli.train.state.predict", lambda *_, logits=logits: logits)
            state.step += 1
            given = Distance(space, lambda _, distance=distance: distance)
            improved.append(validate(setup, state, run, setup.recipe.stages[0], given))
        return improved

    return script


@pytest.mark.parametrize(
    ("criterion", "accuracy", "distance", "lowest"),
    [
        ("accuracy", 0.75, 8.0, (0.25,)),
        ("accuracy", 0.75, None, (0.25,)),
        ("samples", 0.75, 8.0, (8.0,)),
        ("samples", 0.75, None, (inf,)),
        ("both", 0.75, 8.0, (2.0, 8.0)),
        ("both", 1.0, None, (inf,)),
    ],
)
def test_the_criteria_by_hand(criterion: Any, accuracy: float, distance: float | None, lowest: tuple[float, ...]) -> None:
    assert rank(criterion, accuracy, distance) == lowest


def test_without_an_error_the_closer_samples_are_better_and_a_distance_beats_none() -> None:
    assert rank("both", 1.0, 2.0) < rank("both", 1.0, 3.0) < rank("both", 0.9, 1e9) < rank("both", 1.0)
    assert rank("samples", 0.0, 1e9) < rank("samples", 1.0)


PAIRS = [(0.5, 20.0), (0.9, 9.0), (0.4, 1.0), (0.8, 2.5), (0.9, 9.0)]


@pytest.mark.parametrize(("criterion", "best"), [("accuracy", 2), ("samples", 3), ("both", 4)])
def test_each_criterion_has_a_best_of_its_own(begin: Begin, script: Script, criterion: str, best: int) -> None:
    setup, run = begin(*SAMPLING, f"log.best={criterion}")
    state = setup.initial_state()
    improved = script(setup, run, state, PAIRS)
    assert state.best_step == best == max(i for i, better in enumerate(improved, 1) if better)
    assert (state.best_accuracy, state.best_distance, state.best_space) == (
        pytest.approx(PAIRS[best - 1][0]),
        PAIRS[best - 1][1],
        "scripted",
    )


def test_distances_in_another_space_are_no_rivals(begin: Begin, script: Script) -> None:
    setup, run = begin(*SAMPLING, "log.best=samples")
    state = setup.initial_state()
    script(setup, run, state, [(0.9, 1.0)])
    assert script(setup, run, state, [(0.9, 50.0), (0.9, 60.0)], "another space") == [True, False]
    assert (state.best_step, state.best_distance, state.best_space) == (2, 50.0, "another space")


def test_samples_that_are_not_finite_do_not_compete(begin: Begin, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmmcli.train.validate.fresh_samples", lambda *_: torch.full((30, 1, 8, 8), nan))
    setup, run = begin(*SAMPLING, "log.best=both")
    state = setup.initial_state()
    assert script(setup, run, state, [(1.0, 1.0)]) == [False]
    assert validations(run)[0]["sample_distance"] is None
    assert state.best_step == 0


def test_a_validation_line_has_the_distance_and_its_space(begin: Begin) -> None:
    setup, run = begin(*SAMPLING)
    seen: list[RawImages] = []

    def count(samples: RawImages) -> float:
        seen.append(samples)
        return len(seen)

    trained(setup, run, count)
    lines = validations(run)
    assert [set(line) for line in lines] == [{"step", "validation_accuracy", "sample_distance", "sample_space"}] * 5
    assert [(line["sample_distance"], line["sample_space"]) for line in lines] == [(i, "darkness") for i in range(1, 6)]
    assert [(samples.shape, samples.dtype) for samples in seen] == [((30, 1, 8, 8), torch.uint8)] * 5


@pytest.mark.parametrize("target", ["staged-latent", "marginal"])
def test_samples_are_those_of_the_published_model_and_always_drawn_alike(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.setattr("gmmcli.train.validate.CHUNK", 16)
    setup, run = begin(*SAMPLING, f"chains.target.kind={target}", "model.backbone.norm=batch", "optim.ema_decay=0.5", "seed=7")
    seen: list[RawImages] = []

    def keep(samples: RawImages) -> float:
        seen.append(samples)
        return 1.0

    trained(setup, run, keep)
    table, labels = run.recipe.chains.of_classes, torch.arange(10).repeat_interleave(3)
    assert isinstance(table.target, Conditional) == (target == "marginal")
    for checkpoint, samples in zip(run.checkpoints, seen, strict=True):
        model = run.card().build()
        model.load_state_dict(checkpoint.tensors("model"))
        setup.recipe.compute.place(model, setup.device).eval()
        parts = [
            fresh_samples(model, table, run.starts(), part, stream("cpu", 7, "validation samples", i))
            for i, part in enumerate(torch.split(labels, 16))
        ]
        assert torch.equal(samples, to_bytes(torch.cat(parts)))


def test_to_score_samples_changes_no_weight(begin: Begin) -> None:
    plain = begin(SAMPLER, "chains.fresh_steps=4", "model.backbone.norm=batch")
    train(*plain, quiet=True)
    scored = trained(*begin(*SAMPLING, "model.backbone.norm=batch"))
    assert contents(scored.checkpoint()) == contents(plain[1].checkpoint())


@pytest.mark.parametrize("criterion", ["samples", "both"])
def test_before_a_stage_with_chains_nothing_is_sampled_and_nothing_competes(begin: Begin, criterion: str) -> None:
    run = trained(*begin(JOINT, *SAMPLING, f"log.best={criterion}"), lambda _: 3.0)
    assert [line["step"] for line in validations(run) if "sample_distance" in line] == [6, 7, 8, 9, 10]
    assert run.checkpoints[4].progress["best_step"] == 0
    assert run.checkpoint(best=True).step >= 6
    assert run.checkpoints[5].progress["best_step"] == 6


def test_by_accuracy_every_stage_competes(begin: Begin) -> None:
    run = trained(*begin(JOINT, *SAMPLING))
    assert run.checkpoints[0].progress["best_step"] == 1


@pytest.mark.parametrize("criterion", ["accuracy", "samples", "both"])
def test_the_best_stays_and_a_resume_goes_on_comparing_exactly(begin: Begin, tmp_path: Path, criterion: str) -> None:
    options = (JOINT, *SAMPLING, f"log.best={criterion}")
    straight = trained(*begin(*options))
    pruned = trained(*begin(*options, "log.keep=1"))
    best = straight.checkpoint().progress["best_step"]
    scores = {
        line["step"]: rank(straight.recipe.log.best, line["validation_accuracy"], line.get("sample_distance"))
        for line in validations(straight)
    }
    assert best == min(scores, key=lambda step: (scores[step], step))
    assert pruned.checkpoint(best=True).step == best
    assert {c.step for c in pruned.checkpoints} == {best, 10}
    for step in (3, 5, 8):
        cut = cut_at(straight, step, tmp_path)
        trained(Setup.prepare(cut.recipe), cut, resume=True)
        assert cut.checkpoint().progress == straight.checkpoint().progress
        assert validations(cut) == validations(straight)
        assert contents(cut.checkpoint(best=True)) == contents(straight.checkpoint(best=True))


def test_a_checkpoint_from_before_samples_were_scored_goes_on_by_accuracy(begin: Begin) -> None:
    setup, run = begin(SAMPLER)
    state = setup.initial_state()
    state.best_accuracy, state.best_step = 0.5, 0
    saved = state.save(run, setup.dataset)
    known = {key: value for key, value in saved.progress.items() if key not in ("best_distance", "best_space")}
    parts = {name: Part(saved.tensors(name), saved.metadata(name)) for name in ("model", "buffer")}
    older = Checkpoint.save(run.path / "checkpoints", 0, parts, known)
    back = setup.restored(older)
    assert (back.best_accuracy, back.best_distance, back.best_space) == (0.5, None, None)


def test_samples_are_not_silently_left_out(begin: Begin) -> None:
    setup, run = begin(*SAMPLING)
    with pytest.raises(ValueError, match="needs a distance"):
        train(setup, run, quiet=True)
    assert run.provenance["status"] == "created"


def test_a_recipe_without_chains_is_validated_without_samples(begin: Begin) -> None:
    setup, run = begin(*SAMPLING, "stages.0.objective.kind=center-regression")
    train(setup, run, quiet=True)
    assert [set(line) for line in validations(run)] == [{"step", "validation_accuracy"}] * 5
