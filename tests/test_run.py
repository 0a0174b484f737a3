import re
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

from gmmcli.checkpoint import Checkpoint, Part
from gmmcli.core.starts import ClassGaussian, GaussianStarts, UniformStarts
from gmmcli.data.npz import Npz
from gmmcli.errors import CheckpointError, DataError, RunError
from gmmcli.model_card import ModelCard, load_model
from gmmcli.recipe import Recipe
from gmmcli.run import Run, default_runs_dir, list_runs, open_run
from untrained import NAMES, create, save


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GMMC_RUN", raising=False)
    monkeypatch.delenv("GMMC_RUNS_DIR", raising=False)


def named(runs_dir: Path, run_id: str, recipe: Recipe, step: int | None = 1) -> Run:
    path = runs_dir / run_id
    path.mkdir(parents=True)
    (path / "recipe.toml").write_text(recipe.dumps())
    run = Run(path)
    if step is not None:
        save(run, step)
    return run


def test_a_run_of_an_earlier_version_opens(tmp_path: Path, tiny_recipe: Recipe) -> None:
    old = tiny_recipe.dumps().replace("[chains]", "[chains]\nfresh_step_scale = 2.0").replace("n_steps = 2", "n_steps = 2\nadapt = 0.8")
    assert "adapt" in old and "fresh_step_scale" in old
    run = create(tiny_recipe, tmp_path)
    (run.path / "recipe.toml").write_text(old)
    card = ModelCard(tiny_recipe, NAMES, (1, 8, 8), 1.5).dump() | {"recipe": old}
    weights = tiny_recipe.model.build(10, 1, 1).state_dict()
    Checkpoint.save(run.path / "checkpoints", 1, {"model": Part(weights, card)}, {"step": 1, "best_step": 1})
    opened = open_run(run.path)
    assert opened.recipe == opened.card().recipe == tiny_recipe
    assert torch.equal(opened.model().state_dict()["backbone.stem.weight"], weights["backbone.stem.weight"])
    assert load_model(run.checkpoint().path / "model.safetensors")[1].recipe == tiny_recipe


def test_create_names_a_run_by_time_and_recipe_and_says_how_it_came_about(tmp_path: Path, tiny_recipe: Recipe) -> None:
    run = create(tiny_recipe, tmp_path / "new" / "runs")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d{6}Z-tiny", run.id)
    assert run.path == tmp_path / "new" / "runs" / run.id
    assert run.recipe == tiny_recipe
    provenance = run.provenance
    assert provenance["argv"] == ["gmmc", "train", "tiny"]
    assert provenance["status"] == "created"
    assert provenance["versions"]["torch"] == version("torch")


def test_create_never_overwrites(tmp_path: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    class Noon:
        @staticmethod
        def now(zone: object) -> "Noon":
            return Noon()

        def __format__(self, spec: str) -> str:
            return "2026-11-23T120000Z"

    monkeypatch.setattr("gmmcli.run.datetime", Noon)
    runs = [create(tiny_recipe, tmp_path) for _ in range(3)]
    assert [run.id for run in runs] == ["2026-11-23T120000Z-tiny" + suffix for suffix in ("", "-2", "-3")]
    assert list_runs(tmp_path)[0].provenance["status"] == "created"


def test_describe_adds_facts_and_keeps_the_others(tmp_path: Path, tiny_recipe: Recipe) -> None:
    run = create(tiny_recipe, tmp_path)
    run.describe(status="running", device="cpu")
    assert run.provenance["status"] == "running"
    assert run.provenance["argv"] == ["gmmc", "train", "tiny"]


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("seed = 1")
    with pytest.raises(RunError, match=r"is not a readable run: .*`name` is missing") as error:
        _ = Run(tmp_path).recipe
    assert error.value.exit_code == 1


def test_a_run_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path, tiny_recipe: Recipe) -> None:
    save(run := named(tmp_path, "2026-01-01-a", tiny_recipe), 10)
    (tmp_path / "2026-02-02-b").mkdir()
    (tmp_path / "2026-02-02-b" / "recipe.toml").write_text("seed = 1")
    assert open_run(None, tmp_path).id == run.id
    assert [run.id for run in list_runs(tmp_path)] == ["2026-01-01-a", "2026-02-02-b"]


def test_open_run_by_path_id_and_unique_prefix(tmp_path: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    run = named(tmp_path, "2026-01-01-a", tiny_recipe)
    named(tmp_path, "2026-02-02-b", tiny_recipe)
    monkeypatch.chdir(tmp_path)
    for name in (run.path, str(run.path), Path("2026-01-01-a"), "2026-01-01-a", "2026-01"):
        assert open_run(name, tmp_path).path.resolve() == run.path


def test_a_recipes_name_means_its_newest_run_with_a_checkpoint(tmp_path: Path, tiny_recipe: Recipe) -> None:
    def made(stamp: str, checkpoint: bool = True) -> Run:
        run = Run(tmp_path / stamp)
        run.path.mkdir()
        (run.path / "recipe.toml").write_text(tiny_recipe.dumps())
        if checkpoint:
            Checkpoint.save(run.path / "checkpoints", 1, {}, {})
        return run

    made("2026-01-01T000000Z-tiny")
    newest = made("2026-01-01T000000Z-tiny-2")
    begun = made("2026-01-02T000000Z-tiny", checkpoint=False)
    made("2026-01-03T000000Z-tiny_too")
    assert open_run("tiny", tmp_path).path == newest.path
    assert open_run("tiny", tmp_path, unfinished=True).path == begun.path
    for other in ("tin", "too", ".*", "tiny-3"):
        with pytest.raises(RunError, match="no run"):
            open_run(other, tmp_path)


def test_an_id_that_starts_others_means_itself_and_a_shared_prefix_is_ambiguous(tmp_path: Path, tiny_recipe: Recipe) -> None:
    first = named(tmp_path, "2026-01-01-a", tiny_recipe)
    named(tmp_path, "2026-01-01-a-2", tiny_recipe)
    assert open_run(first.id, tmp_path).path == first.path
    with pytest.raises(RunError, match=r"^2026 is a prefix of 2 runs: 2026-01-01-a, 2026-01-01-a-2$"):
        open_run("2026", tmp_path)


def test_the_environment_chooses_where_no_name_is_given(tmp_path: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    named(tmp_path, "2026-01-01-a", tiny_recipe)
    named(tmp_path, "2026-02-02-b", tiny_recipe)
    monkeypatch.setenv("GMMC_RUNS_DIR", str(tmp_path))
    monkeypatch.setenv("GMMC_RUN", "2026-01")
    assert default_runs_dir() == tmp_path
    assert open_run().id == "2026-01-01-a"
    assert open_run("2026-02").id == "2026-02-02-b"


def test_else_it_is_the_newest_with_a_complete_checkpoint_or_the_newest_of_all(tmp_path: Path, tiny_recipe: Recipe) -> None:
    named(tmp_path, "2026-01-01-a", tiny_recipe)
    named(tmp_path, "2026-02-02-b", tiny_recipe)
    damaged = named(tmp_path, "2026-03-03-c", tiny_recipe)
    (damaged.checkpoint().path / "manifest.json").unlink()
    named(tmp_path, "2026-04-04-d", tiny_recipe, step=None)
    (tmp_path / "2026-05-05-notes").mkdir()
    assert open_run(None, tmp_path).id == "2026-02-02-b"
    assert open_run(None, tmp_path, unfinished=True).id == "2026-04-04-d"
    assert [run.id for run in list_runs(tmp_path)] == ["2026-01-01-a", "2026-02-02-b", "2026-03-03-c", "2026-04-04-d"]


def test_no_such_run_and_no_run_at_all(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"^no run 2026 in ") as error:
        open_run("2026", tmp_path)
    assert "gmmc train digits_gen" in error.value.hint
    with pytest.raises(RunError, match=r"^no run in .*runs$"):
        open_run(None, tmp_path / "runs")


def test_the_newest_checkpoint_or_the_best_one(tmp_path: Path, tiny_recipe: Recipe) -> None:
    run = create(tiny_recipe, tmp_path)
    with pytest.raises(RunError, match=r"has no complete checkpoint yet$"):
        run.checkpoint()
    save(run, 10)
    save(run, 20)
    save(run, 30, best_step=10)
    assert (run.checkpoint().step, run.checkpoint(best=True).step) == (30, 10)
    run.checkpoints[0].remove()
    assert run.checkpoint(best=True).step == 30  # the best was lost: the newest has to do


def test_card_and_model_come_back_from_the_checkpoint(tmp_path: Path, tiny_recipe: Recipe, generator: torch.Generator) -> None:
    run = create(tiny_recipe, tmp_path)
    save(run, 10, seed=3)
    assert run.card() == ModelCard(tiny_recipe, NAMES, (1, 8, 8), gamma2=1.5)
    model = run.model()
    assert (model.training, model.gamma2) == (False, 1.5)
    images = torch.rand(4, 1, 8, 8, generator=generator) * 2 - 1
    original = tiny_recipe.compute.place(tiny_recipe.model.build(10, 1, seed=3), torch.device("cpu")).eval()
    assert torch.equal(model(images), original(images))


def test_a_model_is_loaded_once_and_anew_where_the_checkpoint_is_another(tmp_path: Path, tiny_recipe: Recipe) -> None:
    run = create(tiny_recipe, tmp_path)
    save(run, 10, best_step=10, seed=3)
    model = run.model()
    assert run.model() is run.model(best=True) is model
    assert Run(run.path).model() is not model
    save(run, 10, seed=4)  # the same step once more
    assert not torch.equal(next(run.model().parameters()), next(model.parameters()))


def test_to_load_a_model_reads_its_manifest_once(tmp_path: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    save(run := create(tiny_recipe, tmp_path), 10)
    read: list[str] = []
    original = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, *rest, **more: (read.append(path.name), original(path, *rest, **more))[1])
    run.model()
    run.starts()
    assert read == ["manifest.json"] * 2


def test_the_buffer_is_as_training_left_it(tmp_path: Path, tiny_recipe: Recipe) -> None:
    run = create(tiny_recipe, tmp_path)
    save(run, 10)
    assert run.buffer().images.eq(0.25).all()


def test_starts_are_those_of_the_newest_checkpoint(tmp_path: Path, tiny_recipe: Recipe, generator: torch.Generator) -> None:
    run = create(replace(tiny_recipe, chains=replace(tiny_recipe.chains, start=ClassGaussian(rank=3))), tmp_path)
    starts = GaussianStarts((1, 8, 8), torch.linspace(-1, 1, 640).view(10, 64), torch.rand(10, 3, 64, generator=generator))
    save(run, 10)
    save(run, 20, starts=starts)
    labels = torch.tensor([3, 9, 3])
    one, other = (these(labels, torch.Generator().manual_seed(1)) for these in (starts, run.starts("cpu")))
    assert torch.equal(one, other)


@pytest.mark.parametrize("chains", [True, False])
def test_starts_that_no_checkpoint_kept_are_uniform(tmp_path: Path, tiny_recipe: Recipe, chains: bool) -> None:
    run = create(tiny_recipe, tmp_path)
    save(run, 10, chains=chains)
    assert run.starts() == UniformStarts((1, 8, 8))


def test_a_run_without_chains_has_no_buffer(tmp_path: Path, tiny_recipe: Recipe) -> None:
    run = create(tiny_recipe, tmp_path)
    save(run, 10, chains=False)
    with pytest.raises(RunError, match="was trained without chains"):
        run.buffer()


def test_metrics_come_back_in_order_without_a_line_cut_short(tmp_path: Path, tiny_recipe: Recipe) -> None:
    run = create(tiny_recipe, tmp_path)
    assert run.metrics() == []
    lines = [{"step": step, "loss": step / 2} for step in (5, 10)]
    for line in lines:
        run.log(line)
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 15, "lo')
    assert run.metrics() == lines


def test_forget_after_drops_what_will_be_repeated_and_keeps_rollbacks(tmp_path: Path, tiny_recipe: Recipe) -> None:
    run = create(tiny_recipe, tmp_path)
    rollback, warned = {"step": 18, "event": "rollback", "to_step": 10}, {"step": 10, "event": "chains"}
    for line in ({"step": 5}, {"step": 10}, warned, {"step": 15}, warned | {"step": 15}, rollback, {"step": 20}):
        run.log(line)
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 25, "lo')
    run.forget_after(10)
    assert run.metrics() == [{"step": 5}, {"step": 10}, warned, rollback]  # a warning beyond is given again
    run.log({"step": 15})
    assert run.metrics()[-1] == {"step": 15}  # the cut line is gone, the new one stands by itself


def test_a_locked_run_refuses_a_second_holder_until_it_is_let_go(tmp_path: Path, tiny_recipe: Recipe) -> None:
    run = create(tiny_recipe, tmp_path)
    with run.locked(), pytest.raises(RunError, match=r"is being trained by another process$"), Run(run.path).locked():
        pass
    with Run(run.path).locked():
        pass


def test_a_run_finds_its_data_from_anywhere_and_moved_together_with_them(
    tmp_path: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    (here / "data").mkdir(parents=True)
    images, labels = np.zeros((40, 8, 8), np.uint8), np.arange(40) % 2
    np.savez(here / "data" / "x.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    recipe = replace(tiny_recipe, data=replace(tiny_recipe.data, source=Npz(path="data/x.npz")))
    monkeypatch.chdir(here)
    run = create(recipe, Path("runs"))
    assert run.dataset().name == "data/x.npz"
    monkeypatch.chdir(tmp_path)
    assert Run(here / "runs" / run.id).dataset().name == "here/data/x.npz"
    here.rename(tmp_path / "there")
    assert Run(Path("there/runs") / run.id).dataset().name == "there/data/x.npz"
    monkeypatch.chdir(tmp_path / "there")
    Run(Path("runs") / run.id).describe(trained_from="../../nowhere")  # the data of a run that was moved alone may be here
    assert Run(Path("runs") / run.id).dataset().title == "x.npz"
    (tmp_path / "there" / "data" / "x.npz").unlink()
    with pytest.raises(DataError, match=r"^no file at data/x\.npz$"):
        Run(Path("runs") / run.id).dataset()


def test_a_training_that_nobody_holds_the_lock_of_was_killed(tmp_path: Path, tiny_recipe: Recipe) -> None:
    run = create(tiny_recipe, tmp_path)
    assert run.status == "created"
    run.describe(status="running")
    assert run.status == "killed"  # not even a lock file
    with run.locked():
        assert run.status == "running"
    assert run.status == "killed"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("tiny2", "did you mean tiny?"),
        ("2026-01-02T000000Z-tini", "did you mean 2026-01-02T000000Z-tiny?"),
        ("9", "`gmmc runs ls` lists all 2"),
    ],
)
def test_a_mistyped_run_says_what_there_is(name: str, hint: str, tmp_path: Path, tiny_recipe: Recipe) -> None:
    for stamp in ("2026-01-01T000000Z-tiny", "2026-01-02T000000Z-tiny"):
        named(tmp_path, stamp, tiny_recipe, step=None)
    with pytest.raises(RunError, match=f"^no run {name} in ") as error:
        open_run(name, tmp_path)
    assert hint in error.value.hint


def test_an_empty_name_is_not_the_newest_run(tmp_path: Path) -> None:
    """`--run "$RUN"` with an unset variable."""
    with pytest.raises(RunError, match="the name of the run is empty"):
        open_run("", tmp_path)


def test_weights_of_another_model_than_the_header_says_are_damage(tmp_path: Path, tiny_recipe: Recipe) -> None:
    run, card = create(tiny_recipe, tmp_path), ModelCard(tiny_recipe, NAMES, (1, 8, 8), 1.5).dump()
    weights = {key: torch.zeros(*tensor.shape, 2) for key, tensor in tiny_recipe.model.build(10, 1, 1).state_dict().items()}
    Checkpoint.save(run.path / "checkpoints", 1, {"model": Part(weights, card)}, {"step": 1, "best_step": 1})
    with pytest.raises(CheckpointError, match=r"model\.safetensors is of another model than its header says"):
        run.model()
