import base64
import json
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest
from animals import Gmmc, Trained
from handwritten import GEN, SOFTMAX, calibrated, models, scored, write
from matplotlib.figure import Figure
from running import described, line, logged, previewed
from running import trained as trained_now

from gmmcli.run import Run


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """Three models in ./runs, the last of two seeds."""
    monkeypatch.chdir(tmp_path)
    gen, softmax = models(Path("runs"), gen=(0.9, 0.01), softmax=(0.8, 0.01))
    return [calibrated(gen, 0.01, 0.02), calibrated(softmax, 0.1, 0.02), scored(write(Path("runs"), SOFTMAX, seed=2), 0.7)]


def test_one_run_has_its_report_in_its_folder(gmmc: Gmmc, runs: list[Run]) -> None:
    result = gmmc("report", "--run", runs[0].id)
    assert result.exit_code == 0, result.stderr
    path = runs[0].path / "report.html"
    assert result.stdout.splitlines()[-1] == str(path)
    assert any(line.split() == ["accuracy", "↑", "90.0%"] for line in result.stdout.splitlines())
    assert result.stderr == f"gmmc: Markdown: {path.with_suffix('.md')}\n"
    assert path.with_suffix(".md").read_text(encoding="utf-8").startswith(f"# {GEN}\n")
    assert f"<title>{GEN}" in path.read_text(encoding="utf-8")


def test_runs_side_by_side_are_models_over_seeds(gmmc: Gmmc, runs: list[Run]) -> None:
    result = gmmc("report", *(word for run in runs for word in ("--run", run.id)), "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    assert (document["schema"], document["command"], document["page"]) == (1, "report", "runs/report.html")
    assert {name: model["runs"] for name, model in document["values"].items()} == {GEN: [runs[0].id], SOFTMAX: [runs[1].id, runs[2].id]}
    assert document["values"][SOFTMAX]["figures"]["accuracy"]["mean"] == pytest.approx(0.75)
    claims = {claim["text"]: claim["verdict"] for claim in document["claims"]}
    assert claims["Generative GMMC is better calibrated than softmax"] == "holds"
    assert Path("runs/report.html").is_file()


def test_a_study_is_all_runs_of_its_directory_by_its_own_title(gmmc: Gmmc, runs: list[Run]) -> None:
    Path("runs/study.toml").write_text('name = "zoo"\nabout = "Of three <kinds>."\nmodels = []\n')
    document = json.loads(gmmc("report", "--study", "runs", "--json").stdout)
    assert list(document["values"]) == [GEN, SOFTMAX]
    assert Path("runs/report.md").read_text(encoding="utf-8").startswith("# Study zoo\n\nOf three <kinds>.\n")
    assert "<title>Study zoo" in Path("runs/report.html").read_text(encoding="utf-8")


def test_a_directory_without_a_study_is_titled_by_its_models(gmmc: Gmmc, runs: list[Run]) -> None:
    assert gmmc("report", "--study", "runs", "--quiet").stdout == "runs/report.html\n"
    assert Path("runs/report.md").read_text(encoding="utf-8").startswith(f"# {GEN}, {SOFTMAX}\n\n")


@pytest.mark.parametrize(
    ("text", "said"), [("a = ", "is not valid TOML"), ("a = " + "[" * 500, "is not valid TOML"), ("\xff", "cannot be read")]
)
def test_a_damaged_file_of_a_study_is_said(text: str, said: str, gmmc: Gmmc, runs: list[Run]) -> None:
    Path("runs/study.toml").write_text(text, encoding="latin-1")
    result = gmmc("report", "--study", "runs")
    assert (result.exit_code, result.stdout) == (2, "")
    message, *_ = result.stderr.splitlines()
    assert message.startswith("gmmc: error: runs/study.toml ")
    assert said in message


def test_what_a_study_calls_itself_may_be_anything(gmmc: Gmmc, runs: list[Run]) -> None:
    Path("runs/study.toml").write_text('about = [1, "<b>"]\n')
    assert gmmc("report", "--study", "runs", "--quiet").stdout == "runs/report.html\n"
    assert Path("runs/report.md").read_text(encoding="utf-8").startswith(f"# {GEN}, {SOFTMAX}\n\n[1, '<b>']\n")


@pytest.mark.parametrize("asked", ["--run", "--study"])
def test_the_report_may_be_written_elsewhere(asked: str, gmmc: Gmmc, runs: list[Run]) -> None:
    result = gmmc("report", asked, runs[0].path if asked == "--run" else "runs", "--out", "new/folder/mine.html", "--quiet")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "new/folder/mine.html\n", "")
    assert sorted(path.name for path in Path("new/folder").iterdir()) == ["mine.html", "mine.md"]
    assert not list(Path("runs").rglob("report.*"))


def test_a_run_that_goes_on_stands_aside_until_it_has_ended(gmmc: Gmmc, runs: list[Run]) -> None:
    runs[1].describe(status="running")
    (runs[1].path / "results" / "eval-accuracy.json").unlink()
    document = json.loads(gmmc("report", "--study", "runs", "--json").stdout)
    assert document["values"][SOFTMAX]["runs"] == [runs[2].id]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--study", "nowhere"], 1, "no runs in nowhere"),
        (["--run", "2026-01-01T000000Z-digits_gen", "--study", "runs"], 2, "--run and --study cannot be combined"),
        (["--run", "1999"], 1, "no run 1999 in runs"),
        (["--run", "2026"], 1, "2026 is a prefix of 3 runs"),
        ([], 1, "no run in runs"),  # none with a checkpoint
    ],
)
@pytest.mark.usefixtures("runs")
def test_what_cannot_be_reported_is_said(words: list[str], code: int, said: str, gmmc: Gmmc) -> None:
    result = gmmc("report", *words)
    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr
    assert not list(Path().rglob("report.*"))


def test_a_report_before_anything_has_ended(gmmc: Gmmc, tmp_path: Path) -> None:
    write(tmp_path, status="running")
    result = gmmc("report", "--study", tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "none of these runs has ended" in result.stderr
    assert not (tmp_path / "report.html").exists()


def test_only_what_the_commands_measured_alike_is_compared(
    gmmc: Gmmc, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More outlier sets on one run, one score alone on the other: the means were over other sets, and a column was gone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gmmcli.evaluate.plots.histograms", lambda *values: Figure())
    one, other = (Path(shutil.copytree(trained.path, Path("runs") / f"{trained.path.name}-{i}")) for i in (1, 2))
    recipe = other / "recipe.toml"
    recipe.write_text(recipe.read_text().replace('name = "animals"', 'name = "beasts"').replace("batch_size = 16", "batch_size = 17"))
    asked = [
        (one, "--against noise"),
        (other, "--against noise"),
        (one, "--against interp --against uniform"),
        (other, "--against noise --score max_logit"),
    ]
    for run, words in asked:
        assert gmmc("eval", "ood", "--run", run, *words.split(), "--quiet").exit_code == 0
    found = json.loads(gmmc("report", "--run", one, "--run", other, "--json").stdout)
    figures = [model["figures"] for model in found["values"].values()]
    key = "ood mean; over uniform, gaussian"
    for own in figures:
        both = [own[f"ood {name} log_px"]["mean"] for name in ("uniform", "gaussian")]
        assert own[key]["mean"] == pytest.approx(sum(both) / 2)
        assert own[key]["over"] == "images"
    assert figures[0][key]["mean"] == figures[1][key]["mean"]  # of the same weights
    (answer,) = [one for one in found["answers"] if one["metric"] == key]
    assert (answer["answer"], len(answer["as_good"])) == ("undecided", 1)
    assert found["left_out"] == ["log p(x) against interp: measured for animals only, so left out of the mean over sets"]


def test_a_damaged_run_of_several_is_left_out_and_said_so(gmmc: Gmmc, runs: list[Run]) -> None:
    (runs[0].path / "provenance.json").write_text("{")
    (runs[1].path / "results" / "eval-ood.json").write_text("[]")
    result = gmmc("report", "--study", "runs", "--json")
    assert result.exit_code == 0, result.stderr
    assert list(json.loads(result.stdout)["values"]) == [SOFTMAX]
    assert f"warning: {runs[0].path / 'provenance.json'} is damaged" in result.stderr
    assert f"warning: {runs[1].path / 'results' / 'eval-ood.json'} is damaged" in result.stderr
    alone = gmmc("report", "--run", runs[0].id)
    assert (alone.exit_code, "is damaged" in alone.stderr) == (1, True)


@pytest.fixture
def first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The first training of all, in ./runs, without a checkpoint."""
    monkeypatch.chdir(tmp_path)
    run = write(Path("runs"), status="running", steps=950)
    (run.path / ".lock").touch()
    return run.path


def test_a_first_training_shows_its_curves_and_its_newest_preview(gmmc: Gmmc, first: Path) -> None:
    logged(first, line(10), {"step": 10, "validation_accuracy": 0.5}, line(20))
    picture = previewed(first, 20)
    with trained_now(first):
        result = gmmc("report")
    assert result.exit_code == 0, result.stderr
    assert f"{GEN}, seed 1, is being trained: step 20 of 950" in result.stdout
    page = (first / "report.html").read_text(encoding="utf-8")
    assert f"{GEN}, seed 1, is being trained: step 20 of 950" in page
    assert 'data-chart="energies"' in page
    assert base64.b64encode(picture.read_bytes()).decode() in page
    assert "Nothing has been measured yet." in page
    assert 'http-equiv="refresh"' not in page
    assert "is being trained: step 20 of 950" in (first / "report.md").read_text(encoding="utf-8")
    stopped = gmmc("report", "--run", first)
    assert "is not finished (killed): step 20 of 950" in stopped.stdout


def test_a_second_training_of_a_recipe_does_not_hide_the_first(gmmc: Gmmc, runs: list[Run]) -> None:
    again = write(Path("runs"), SOFTMAX, seed=2, status="running")
    other = write(Path("runs"), SOFTMAX, seed=3, status="running")
    for run in (again, other):
        (run.path / ".lock").touch()
        logged(run.path, line(10))
    with trained_now(again.path), trained_now(other.path):
        document = json.loads(gmmc("report", "--study", "runs", "--json").stdout)
    assert document["values"][SOFTMAX]["runs"] == [runs[1].id, runs[2].id, other.id]
    assert document["values"][SOFTMAX]["figures"]["accuracy"]["mean"] == pytest.approx(0.75)


def test_a_watched_report_is_written_where_something_changed_until_the_training_ends(
    gmmc: Gmmc, first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[str | None] = []
    training = ExitStack()

    def play(seconds: float) -> None:
        page = first / "report.html"
        pages.append(page.read_text(encoding="utf-8") if page.exists() else None)
        page.unlink(missing_ok=True)
        scenes.pop(0)()

    scenes = [
        lambda: logged(first, line(10)),
        lambda: None,
        lambda: (described(first, status="finished", wall_time_s=9.0), training.close()),
    ]
    monkeypatch.setattr("gmmcli.cli.report.time.sleep", play)
    with training:
        training.enter_context(trained_now(first))
        result = gmmc("report", "--watch")
    assert result.exit_code == 0, result.stderr
    assert scenes == []
    nothing, begun, unchanged = pages
    assert nothing is unchanged is None
    assert begun and "step 10 of 950" in begun and '<meta http-equiv="refresh" content="5">' in begun
    last = (first / "report.html").read_text(encoding="utf-8")
    assert "is being trained" not in last and "http-equiv" not in last
    assert result.stdout.splitlines()[-1] == str(first / "report.html")


def test_ctrl_c_ends_a_watched_report_with_a_page_that_stands_still(gmmc: Gmmc, first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gmmcli.cli.report.time.sleep", interrupted)
    logged(first, line(10))
    with trained_now(first):
        result = gmmc("report", "--watch", "--quiet")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{first / 'report.html'}\n", "")
    assert "http-equiv" not in (first / "report.html").read_text(encoding="utf-8")
