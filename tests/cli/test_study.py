import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import forked
import pytest
from animals import Gmmc, Trained

from gmmcli.run import Run, list_runs

Write = Callable[..., Path]
STUDY = "runs/study-zoo"


@pytest.fixture
def write(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write zoo.toml in an empty working directory: one model, the animals, asked these evaluations; the rest of its table as given."""
    monkeypatch.chdir(tmp_path)

    def written(*evaluations: str, more: str = "", top: str = "") -> Path:
        path = Path("zoo.toml")
        model = f'[[models]]\nname = "GMMC"\nrecipe = "{trained.recipe}"\n{more}'
        path.write_text(f'name = "zoo"\nabout = "Of three kinds."\nevaluations = {json.dumps(evaluations)}\n{top}\n{model}\n')
        return path

    return written


@pytest.fixture
def adopted(trained: Trained, write: Write) -> Run:
    """The model's run, trained before there was a study."""
    return Run(Path(shutil.copytree(trained.path, Path(STUDY) / trained.path.name)))


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children that need not import torch."""
    monkeypatch.setattr("gmmcli.study.processes.subprocess", forked.SUBPROCESS)


def test_a_study_is_trained_and_reported(gmmc: Gmmc, write: Write, trained: Trained) -> None:
    result = gmmc("study", write(), "--json", "-q")
    assert (result.exit_code, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    (run,) = list_runs(Path(STUDY))
    assert (document["command"], document["page"]) == ("study", f"{STUDY}/report.html")
    figures = document["values"]["GMMC"]["figures"]
    assert document["values"]["GMMC"]["runs"] == [run.id]
    assert figures["accuracy"]["mean"] == trained.answer["values"]["accuracy"]  # the same recipe, trained by a child
    assert Path(document["page"]).read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html>")
    assert Path(STUDY, "report.md").read_text(encoding="utf-8").startswith("# Study zoo\n\nOf three kinds.\n")
    assert Path(STUDY, "study.toml").read_text() == Path("zoo.toml").read_text()


def test_what_is_done_is_only_reported(gmmc: Gmmc, write: Write, adopted: Run) -> None:
    result = gmmc("study", write())
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1] == f"{STUDY}/report.html"
    assert "GMMC" in result.stdout
    assert result.stderr.splitlines()[0] == f"gmmc: study {STUDY}, tasks: 1"
    assert not Path(STUDY, "journal.jsonl").exists()


@pytest.mark.usefixtures("adopted")
def test_a_study_may_have_its_directory_elsewhere(gmmc: Gmmc, write: Write) -> None:
    Path(STUDY).rename("mine")
    assert json.loads(gmmc("study", write(), "--out", "mine", "--json").stdout)["page"] == "mine/report.html"
    Path("mine").rename("study-zoo")
    assert json.loads(gmmc("study", write(), "--runs-dir", ".", "--json").stdout)["page"] == "study-zoo/report.html"


@pytest.mark.usefixtures("adopted", "light")
def test_an_evaluation_without_its_data_is_left_out_and_said_so(gmmc: Gmmc, write: Write) -> None:
    result = gmmc("study", write("tsne --data npz:gone.npz"), "--quiet")
    assert result.exit_code == 0
    (line,) = result.stderr.splitlines()
    assert line.startswith("gmmc: GMMC seed 1: tsne --data npz:gone.npz: ")
    assert "gone.npz" in line.removeprefix("gmmc: GMMC seed 1: tsne --data npz:gone.npz: ")


@pytest.mark.usefixtures("light")
def test_a_divergence_is_said_and_no_failure(gmmc: Gmmc, write: Write) -> None:
    more = 'set = ["stages.0.objective.margin=0.0", "optim.learning_rate=1e6", "guard.max_loss=1e3"]'
    result = gmmc("study", write("eval calibrate", more=more), "--json", "--quiet")
    assert result.exit_code == 0
    assert result.stderr.startswith("gmmc: GMMC seed 1: train: training diverged at step ")
    assert json.loads(result.stdout)["values"]["GMMC"]["figures"]["ended"]["mean"] == 0
    assert gmmc("study", "zoo.toml", "--quiet").stderr == ""  # not tried again


@pytest.mark.usefixtures("adopted", "light")
def test_a_failure_exits_1_after_the_report_and_names_the_first_and_the_logs(gmmc: Gmmc, write: Write) -> None:
    result = gmmc("study", write("eval ood --score none", "eval ood --against uniform --score log_px"), "--quiet")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "gmmc: error: 1 of 3 tasks failed; the first: GMMC seed 1, `gmmc eval ood --score none`: no score 'none'",
        f"gmmc: see {STUDY}/logs; run the same command again to retry",
    ]
    assert Path(STUDY, "report.html").is_file()
    assert Path(STUDY, "study.toml").is_file()
    assert [line["exit"] for line in map(json.loads, Path(STUDY, "journal.jsonl").read_text().splitlines())] == [2, 0]
    assert gmmc("study", "zoo.toml", "--dry-run").stdout.splitlines() == ["GMMC, seed 1: eval ood --score none", "1 of 3 tasks remaining"]


@pytest.mark.usefixtures("light")
def test_where_nothing_could_be_trained_it_is_said_why(gmmc: Gmmc, write: Write) -> None:
    result = gmmc("study", write("eval calibrate"), "--set", "data.source.path=gone.npz", "--quiet")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "1 of 2 tasks failed; the first: GMMC seed 1, `gmmc train`: " in result.stderr
    assert "gone.npz" in result.stderr


def test_a_dry_run_shows_what_is_left_and_does_nothing(gmmc: Gmmc, write: Write) -> None:
    path = write("eval calibrate", "eval ood --against noise", more="seeds = [1, 2]")
    result = gmmc("study", path, "--dry-run")
    assert (result.exit_code, result.stderr) == (0, "")
    left = "train, eval calibrate, eval ood --against noise"
    assert result.stdout.splitlines() == [f"GMMC, seed 1: {left}", f"GMMC, seed 2: {left}", "6 of 6 tasks remaining"]
    document = json.loads(gmmc("study", path, "--dry-run", "--json").stdout)
    assert (document["schema"], document["command"]) == (1, "study --dry-run")
    assert document["values"] == [{"model": "GMMC", "seed": seed, "left": left.split(", ")} for seed in (1, 2)]
    assert list(Path().iterdir()) == [path]


@pytest.mark.usefixtures("adopted")
def test_a_dry_run_leaves_out_what_is_done(gmmc: Gmmc, write: Write) -> None:
    assert gmmc("study", write(), "--dry-run").stdout.splitlines() == ["GMMC, seed 1: done", "0 of 1 tasks remaining"]
    assert gmmc("study", write(), "--set", "stages.0.epochs=3", "--dry-run").stdout.splitlines()[0] == "GMMC, seed 1: train"


@pytest.mark.parametrize(
    ("evaluation", "said"),
    [
        ("fly", "no such command 'fly'"),
        ("", "no such command ''"),
        ("eval", "no such command ''"),
        ("eval accuraci", "no such command 'accuraci'"),
        ("eval ood --scroe log_px", "No such option"),
        ("eval calibrate --n many", "must be an integer"),
        ("eval calibrate nothing", "unexpected extra argument"),
        ("eval generate --from cellar", "'cellar' is not one of"),
        ("train digits_gen", "does not measure a run"),
        ("runs ls", "does not measure a run"),
        ("report", "does not measure a run"),
        ("study zoo.toml", "does not measure a run"),
        ("eval ood --against 'a b", "No closing quotation"),
        ("tsne --run=/etc", "--run cannot be used in a study"),
        ("tsne --n 20 --run /etc --runs-dir=/", "--run, --runs-dir cannot be used in a study"),
        ("eval accuracy -q --help", "--help cannot be used in a study"),
        ("eval accuracy -qh", "No such option: -h"),
        ("eval accuracy --json", "--json cannot be used in a study"),
        ("attack pgd --eps 8/0", "eps '8/0' is no number"),
        ("attack fgsm --eps 8", "eps 8 is more than the whole range of a pixel"),
        ("attack pgd --norm l2 --eps nan", "eps nan is not a radius"),
    ],
)
def test_an_evaluation_that_cannot_be_meant_exits_2_before_anything_is_trained(
    evaluation: str, said: str, gmmc: Gmmc, write: Write
) -> None:
    path = write("eval calibrate", evaluation)
    result = gmmc("study", path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert f"`{evaluation}`" in result.stderr
    assert list(Path().iterdir()) == [path]


def test_a_wrong_option_points_to_the_help_of_its_command(gmmc: Gmmc, write: Write) -> None:
    result = gmmc("study", write("eval ood --against noise --scroe log_px"))
    assert result.stderr.splitlines()[-1] == "gmmc: see gmmc eval ood --help"


@pytest.mark.parametrize(
    ("more", "top", "said", "hint"),
    [
        ("", "seeeds = [1]", "unknown key `seeeds`", "did you mean `seeds`?"),
        ("evaluation = []", "", "unknown key `models.0.evaluation`", "did you mean `evaluations`?"),
        ('set = ["optim.learning_rat=1.0"]', "", "unknown key `optim.learning_rat`", "did you mean `learning_rate`?"),
        ('[[models]]\nrecipe = "digit_gen"', "", "no recipe digit_gen", "did you mean digits_gen?"),
        ('[[models]]\nname = "GMMC"\nrecipe = "digits_gen"', "", "has model 'GMMC' twice with seed 1", "rename one"),
    ],
)
def test_a_study_that_cannot_be_meant_exits_2(more: str, top: str, said: str, hint: str, gmmc: Gmmc, write: Write) -> None:
    path = write(more=more, top=top)
    result = gmmc("study", path)
    assert (result.exit_code, result.stdout) == (2, "")
    message, second = result.stderr.splitlines()
    assert said in message
    assert second == f"gmmc: {hint}"
    assert list(Path().iterdir()) == [path]


def test_an_unknown_study_exits_2(gmmc: Gmmc) -> None:
    result = gmmc("study", "zzz")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no study zzz" in result.stderr


@pytest.mark.usefixtures("light")
def test_ctrl_c_exits_130_and_says_how_to_go_on(gmmc: Gmmc, write: Write) -> None:
    with forked.stopped(signal.SIGINT, lambda: any(run.metrics() for run in list_runs(Path(STUDY)))):
        result = gmmc("study", write("eval calibrate"), "--set", "stages.0.epochs=100000", "--quiet")
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr == "gmmc: stopped: SIGINT: running trainings are saved\ngmmc: run the same command again to resume\n"
    (run,) = list_runs(Path(STUDY))
    assert run.provenance["status"] == "interrupted"
    assert not Path(STUDY, "report.html").exists()
