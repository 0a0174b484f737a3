import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handwritten import DIS, attacked, audited, calibrated, checkpoint, models, save, scored, write
from PIL import Image

from gmmcli.report import charts as drawn
from gmmcli.report.charts import BINS, CURVE_POINTS, charts
from gmmcli.report.collect import ModelRuns, gather
from gmmcli.run import Run

NAMES = ("cat", "dog", "fox")
TWO_STAGES = "stages=[{epochs=2,objective={kind='center-regression'}},{epochs=3,objective={kind='contrastive-divergence'}}]"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return checkpoint(scored(write(tmp_path), 0.9), NAMES)


def model(*runs: Run) -> ModelRuns:
    (found,) = gather(runs)
    return found


def of(kind: str, *runs: Run) -> Any:
    """What the only model has for this kind of chart, or None."""
    found = charts(gather(runs))[kind]
    assert len(found) <= 1
    return found[0] if found else None


def unpacked(sheet: str, columns: int, tile: int) -> np.ndarray:
    """The images of a sheet, row by row, as (n, height, width) or (n, height, width, channel)."""
    head, _, data = sheet.partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert picture.format == "PNG"
        pixels = np.asarray(picture)
    return np.concatenate([np.stack(np.split(row, columns, axis=1)) for row in np.split(pixels, len(pixels) // tile)])


def pictures(n: int, channels: int = 1, side: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, channels, side, side)).astype(np.uint8)


def as_shown(images: np.ndarray) -> np.ndarray:
    shown: np.ndarray = images[:, 0] if images.shape[1] == 1 else images.transpose(0, 2, 3, 1)
    return shown


def test_a_run_without_results_draws_nothing(tmp_path: Path) -> None:
    assert charts([model(write(tmp_path))]) == {
        kind: [] for kind in ("samples", "previews", "reliability", "ood", "robustness", "tsne", "curves", "switch", "stability")
    }


def test_each_chart_has_the_models_that_have_something_for_it_in_their_order(tmp_path: Path) -> None:
    runs = models(tmp_path, gen=(0.9, 0), dis=(0.8, 0), softmax=(0.7, 0))
    calibrated(runs[2], 0.1, 0.1)
    calibrated(runs[0], 0.1, 0.1)
    audited(runs[1], at8=0.5)
    found = charts(gather(runs))
    assert [one["model"] for one in found["reliability"]] == ["digits_gen", "digits_softmax"]
    assert [one["model"] for one in found["robustness"]] == [DIS]


@pytest.mark.parametrize("command", ["eval generate", "eval ood", "tsne"])
def test_a_result_whose_arrays_are_gone_draws_nothing(command: str, run: Run) -> None:
    values = {"interp": {"log_px": {"auroc": 0.5}}} if command == "eval ood" else {"knn_accuracy": 0.5}
    save(run, command, values, protocol={"samples": {"from": "buffer"}})
    assert all(of(kind, run) is None for kind in ("samples", "ood", "tsne"))


def test_the_reliability_diagram_has_its_bins_at_every_scale(run: Run) -> None:
    found = of("reliability", calibrated(run, 0.1, 0.2, (0.3, 0.4)))
    assert found["n"] == 100
    assert {name: (one["ece"], one["ece_ci95"]) for name, one in found["variants"].items()} == {
        "unit": (0.5, [0.25, 1.0]),
        "gamma": (0.1, [0.05, 0.2]),
        "temperature": (0.2, [0.1, 0.4]),
    }
    assert all(one["bins"] == [{"low": 0.0, "n": 0}] and one["scale"] == 2.0 for one in found["variants"].values())


def test_histograms_are_shares_over_common_bins(run: Run) -> None:
    rng = np.random.default_rng(0)
    scores = {"in log_px": rng.normal(size=1000), "interp log_px": rng.normal(3, 1, 700), "npz:a b.npz log_px": rng.normal(-3, 1, 500)}
    values = {name: {"log_px": {"auroc": 0.25}} for name in ("interp", "npz:a b.npz")} | {"celeba": {"missing": "gone"}}
    save(run, "eval ood", values, arrays=scores)
    found = of("ood", run)
    assert (found["sets"], found["in_distribution"]) == (["interp", "npz:a b.npz"], "digits test")
    chart = found["scores"]["log_px"]
    assert chart["auroc"] == {"interp": 0.25, "npz:a b.npz": 0.25}
    centres = np.array(chart["centres"])
    assert len(centres) == BINS
    width = np.diff(centres).mean()
    assert np.allclose(np.diff(centres), width, rtol=1e-2)
    for name, values_of in scores.items():
        shares = np.array(chart["shares"][name.removesuffix(" log_px")])
        assert shares.sum() == pytest.approx(1, abs=1e-3)
        assert np.abs(shares @ centres - values_of.mean()) < width


def test_scores_that_are_all_alike_have_a_histogram_too(run: Run) -> None:
    save(run, "eval ood", {"interp": {"max_py": {"auroc": 0.5}}}, arrays={"in max_py": np.ones(5), "interp max_py": np.ones(3)})
    shares = of("ood", run)["scores"]["max_py"]["shares"]
    assert [sum(own) for own in shares.values()] == [1, 1]


def test_robustness_is_the_audits_where_there_is_one(run: Run) -> None:
    attacked(audited(run, at4=0.5, at8=0.25), "pgd", "ce", at8=0.75)
    found = of("robustness", run)
    assert (found["clean"], found["sentence"]) == (0.9, "Believe it.")
    assert found["curves"] == {"fgsm-ce": {"4/255": 0.6, "8/255": 0.35}, "worst case": {"4/255": 0.5, "8/255": 0.25}}


def test_robustness_is_that_of_single_attacks_without_an_audit(run: Run) -> None:
    attacked(attacked(run, "pgd", "ce", at8=0.75), "square", "margin", at4=0.5)
    attacked(run, "pgd", "ce", at4=0.8, at16=0.1)
    found = of("robustness", run)
    assert (found["clean"], found["sentence"]) == (0.9, None)
    assert found["curves"] == {"pgd-ce": {"4/255": 0.8, "8/255": 0.75, "16/255": 0.1}, "square-margin": {"4/255": 0.5}}
    assert list(found["curves"]["pgd-ce"]) == ["4/255", "8/255", "16/255"]


def test_attacks_of_other_images_or_settings_are_no_points_of_one_curve(run: Run) -> None:
    attacked(attacked(run, "pgd", "ce", at8=0.75), "pgd", "ce", steps=5, at8=0.8, at16=0.5)
    rows = {"1/255": {"eps": 1 / 255, "accuracy": 0.1}}
    save(
        run,
        "attack pgd",
        {"clean_accuracy": 1.0, "eps": rows},
        "few",
        n=9,
        protocol={"loss": "ce", "norm": "linf", "steps": 40, "restarts": 1},
    )
    found = of("robustness", run)
    assert found["curves"] == {"pgd-ce, steps 40": {"8/255": 0.75}, "pgd-ce, steps 5": {"8/255": 0.8, "16/255": 0.5}}
    assert (found["n"], found["clean"]) == (100, 0.9)


def test_a_refined_classifiers_curve_says_so_and_its_audit_gives_way_to_the_plain_ones(run: Run) -> None:
    protocol = {"loss": "ce", "norm": "linf", "refinement": "10 steps"}
    save(run, "attack pgd", {"clean_accuracy": 1.0, "eps": {"8/255": {"eps": 8 / 255, "accuracy": 0.7}}}, "refined", protocol=protocol)
    assert of("robustness", run)["curves"] == {"pgd-ce, refinement 10 steps": {"8/255": 0.7}}
    values = {"clean_accuracy": 1.0, "attacks": {}, "worst_case": {"8/255": {"accuracy": 0.9}}, "sentence": "Refined."}
    save(run, "attack audit", values, "attack audit refined", n=1000, protocol={"refinement": "10 steps"})
    assert of("robustness", run)["sentence"] == "Refined."
    assert of("robustness", audited(run, at8=0.25))["sentence"] == "Believe it."


def test_histograms_are_of_all_results_of_detection_together(run: Run) -> None:
    """eval ood --score distance once took the place of all other scores."""
    scores = {f"{name} {score}": np.arange(5.0) for name in ("in", "interp") for score in ("log_px", "distance")}
    row = {"auroc": 0.5}
    save(run, "eval ood", {"interp": {"log_px": row, "distance": row}}, arrays=scores)
    more = {"in distance": np.arange(5.0), "svhn distance": np.arange(5.0)}
    save(run, "eval ood", {"svhn": {"distance": {"auroc": 0.25}}}, "eval ood distance", more)
    found = of("ood", run)
    assert found["sets"] == ["interp", "svhn"]
    assert {score: one["auroc"] for score, one in found["scores"].items()} == {
        "log_px": {"interp": 0.5},
        "distance": {"interp": 0.5, "svhn": 0.25},
    }
    assert found["scores"]["distance"]["shares"].keys() == {"in", "interp", "svhn"}


@pytest.mark.parametrize(("n", "shown"), [(7, 7), (600, drawn.POINTS_SHOWN)])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_point_of_the_plane_brings_its_image_along(n: int, shown: int, channels: int, run: Run) -> None:
    images = pictures(n, channels)
    arrays = {"plane": np.arange(2.0 * n).reshape(n, 2), "labels": np.arange(n) % 3, "sampled": np.arange(n) % 5 == 0, "images": images}
    save(run, "tsne", {"knn_accuracy": 0.75}, arrays=arrays)
    found = of("tsne", run)
    assert (found["n"], found["tile"], found["classes"], found["knn_accuracy"]) == (n, 8, list(NAMES), 0.75)
    which = (np.array(found["x"]) / 2).astype(int)
    assert len(set(which.tolist())) == shown
    assert found["y"] == [2 * i + 1 for i in which]
    assert found["labels"] == [i % 3 for i in which]
    assert found["sampled"] == [i % 5 == 0 for i in which]
    tiles = unpacked(found["sheet"], found["columns"], found["tile"])
    assert np.array_equal(tiles[:shown], as_shown(images[which]))
    assert not tiles[shown:].any()


def test_a_plane_from_before_images_were_kept_is_left_out(run: Run) -> None:
    save(run, "tsne", {"knn_accuracy": 0.75}, arrays={"plane": np.zeros((3, 2)), "labels": np.zeros(3), "sampled": np.zeros(3, bool)})
    assert of("tsne", run) is None


def trained(run: Run, steps: int, per_epoch: int, first: int = 1, **more: Any) -> Run:
    """The run with a line a step, of the stage that its recipe says."""
    for step in range(first, steps + 1):
        stages = run.recipe.stages
        stage = stages.index(run.recipe.stage_at((step - 1) / per_epoch)[0])
        line = {"step": step, "epoch": step / per_epoch, "stage": stage, "loss": 1.0, "energy_data": float(step), "accuracy": 0.5}
        run.log(line | ({"energy_model": -float(step)} if stage else {}) | more)
    return run


def test_curves_are_over_epochs_a_curve_a_seed(tmp_path: Path) -> None:
    runs = [scored(write(tmp_path, "digits_gen", TWO_STAGES, seed=seed), 0.5) for seed in (1, 2)]
    trained(runs[0], 10, per_epoch=2)
    runs[0].log({"step": 4, "validation_accuracy": 0.75})
    runs[0].log({"step": 7, "event": "rollback", "to_step": 5})
    found = of("curves", *runs)
    assert found["switches"] == [2]
    first, second = found["seeds"]
    assert (first["seed"], second["seed"]) == (1, 2)
    assert first["epoch"] == [step / 2 for step in range(1, 11)]
    assert first["energy_data"] == list(range(1, 11))
    assert first["energy_model"] == [None] * 4 + [-step for step in range(5, 11)]
    assert (first["validation_epoch"], first["validation_accuracy"]) == ([2.0], [0.75])
    assert first["events"] == [{"epoch": 3.5, "event": "rollback"}]
    assert second["epoch"] == second["events"] == []


@pytest.mark.parametrize("n", [CURVE_POINTS - 1, CURVE_POINTS, CURVE_POINTS + 1, 5 * CURVE_POINTS + 7])
def test_long_trainings_are_thinned_evenly(n: int, run: Run) -> None:
    run.path.joinpath("metrics.jsonl").write_text(
        "".join(json.dumps({"step": step, "epoch": step / 10, "stage": 0, "loss": 1.0}) + "\n" for step in range(1, n + 1))
    )
    epochs = of("curves", run)["seeds"][0]["epoch"]
    assert CURVE_POINTS / 2 <= len(epochs) <= CURVE_POINTS
    assert epochs[0] == 0.1
    assert len(set(np.diff(epochs).round(6))) == 1


def test_around_a_switch_there_are_the_last_step_and_seven_more(tmp_path: Path) -> None:
    run = trained(scored(write(tmp_path, "digits_gen", TWO_STAGES), 0.5), 50, per_epoch=10)
    rows = of("switch", run)["rows"]
    assert [row["iteration"] for row in rows] == list(range(8))
    assert [row["real"] for row in rows] == list(range(20, 28))
    assert [row["sampled"] for row in rows] == [None] + [-step for step in range(21, 28)]
    assert {row["seed"] for row in rows} == {1}


def test_a_switch_whose_steps_were_not_all_logged_is_left_out(tmp_path: Path) -> None:
    run = scored(write(tmp_path, "digits_gen", TWO_STAGES), 0.5)
    for step in range(3, 51, 3):
        trained(run, step, per_epoch=10, first=step)
    assert of("switch", run) is None


def test_stability_counts_who_got_to_the_end_and_says_where_others_did_not(tmp_path: Path) -> None:
    runs = [write(tmp_path, seed=seed, status="finished" if seed < 3 else "diverged") for seed in (1, 2, 3)]
    runs[1].log({"step": 5, "event": "rollback"})
    runs[2].log({"step": 9, "event": "diverged"})
    assert of("stability", *runs) == {"model": "digits_gen", "finished": 2, "of": 3, "diverged_at": [9], "rollbacks": 1}
    assert of("stability", runs[0]) is None
    runs[0].log({"step": 5, "event": "chains", "reason": "100% of the chains no longer move"})
    assert of("stability", runs[0]) is None  # a warning is no divergence


def test_all_of_it_is_json(run: Run) -> None:
    trained(audited(calibrated(run, 0.1, 0.1), at8=0.5), 10, per_epoch=2, energy_data=None)
    arrays = {"plane": np.zeros((3, 2), np.float32), "labels": np.arange(3), "sampled": np.zeros(3, bool), "images": pictures(3)}
    save(run, "tsne", {"knn_accuracy": 0.75}, arrays=arrays)
    save(run, "eval ood", {"x": {"mass": {"auroc": 0.5}}}, arrays={"in mass": np.ones(5, np.float32), "x mass": np.zeros(3, np.float32)})
    save(run, "eval generate", {}, arrays={"samples": pictures(3), "labels": np.arange(3)}, protocol={"samples": {"from": "buffer"}})
    found = charts([model(run)])
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert {kind for kind, some in found.items() if some} == {"samples", "reliability", "ood", "robustness", "tsne", "curves"}
