"""Measurements from Python are those of the commands; what these warn of is a warning of Python's, and nothing is printed."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from animals import invoke

from gmmcli import Run
from gmmcli.errors import GmmcError, RecipeError, RunError

pytestmark = [pytest.mark.usefixtures("undrawn"), pytest.mark.filterwarnings("ignore::UserWarning")]
N = ["--n", 40]
PAIRS: dict[str, tuple[list[object], Callable[[Run], dict[str, Any]]]] = {
    "accuracy": (["eval", "accuracy", *N, "--split", "validation"], lambda run: run.accuracy(n=40, split="validation", device="cpu")),
    "calibrate": (["eval", "calibrate", *N], lambda run: run.calibrate(n=40, device="cpu")),
    "ood": (
        ["eval", "ood", *N, "--against", "interp", "--score", "log_px"],
        lambda run: run.ood(["interp"], ["log_px"], n=40, device="cpu"),
    ),
    "generate": (
        ["eval", "generate", "--from", "buffer", *N, "--features", "pixels", "--seed", 2],
        lambda run: run.generate(origin="buffer", n=40, features="pixels", seed=2, device="cpu"),
    ),
    "pgd": (
        ["attack", "pgd", *N, "--eps", "4/255,8/255", "--steps", 3, "--loss", "margin"],
        lambda run: run.attack("pgd", ["4/255", 8 / 255], n=40, steps=3, loss="margin", device="cpu"),
    ),
    "accuracy, refined": (
        ["eval", "accuracy", *N, "--refine", 2, "--refine-chains", 2, "--refine-noise", 0.05],
        lambda run: run.accuracy(n=40, refine=2, refine_chains=2, refine_noise=0.05, device="cpu"),
    ),
    "fgsm, refined": (
        ["attack", "fgsm", "--n", 10, "--refine", 1, "--refine-noise", 0.05, "--eot", 2],
        lambda run: run.attack("fgsm", n=10, refine=1, refine_noise=0.05, eot=2, device="cpu"),
    ),
    "cw": (
        ["attack", "cw", "--n", 10, "--aim", "next", "--steps", 3, "--searches", 2, "--learning-rate", 0.1],
        lambda run: run.carlini("next", n=10, steps=3, searches=2, learning_rate=0.1, device="cpu"),
    ),
    "fgsm": (["attack", "fgsm", *N, "--scale", 10], lambda run: run.attack("fgsm", n=40, scale=10, device="cpu")),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_result_is_that_of_the_command(
    name: str, opened: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gmmcli.metrics.frechet.SUBSETS", 5)
    words, measure = PAIRS[name]
    result = measure(opened)
    assert capsys.readouterr() == ("", "")
    assert result in opened.results().values()
    answer = invoke(*words, "--run", opened.path, "--device", "cpu", "--json", "-q")
    assert answer.exit_code == 0, answer.stderr
    assert json.loads(answer.stdout) == json.loads(json.dumps(result))


def test_everything_is_measured_in_one(opened: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmmcli.evaluate.settings.named_space", lambda *_: pytest.fail("no buffer, no samples"))
    monkeypatch.setattr("gmmcli.checkpoint.Checkpoint.has", lambda self, part: part != "buffer")
    result = opened.evaluate(["interp"], n=40)
    assert (result["command"], list(result["values"])) == ("eval all", ["accuracy", "calibrate", "ood"])
    assert result["values"]["accuracy"] == opened.accuracy(n=40)["values"]


def test_an_audit_gets_the_images_of_its_command(opened: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, refined = [], []

    def audit(subject: Any, *, transfer: Any, eot: int) -> Any:
        asked.append((subject.n, subject.seed, transfer and transfer.run.id))
        refined.append((subject.refinement and (subject.refinement.steps, subject.refinement.chains), eot))
        raise RunError("not now")

    monkeypatch.setattr("gmmcli.evaluate.audit.audit", audit)
    for settings in ({}, {"n": 7, "seed": 3, "transfer": "digits", "refine": 5, "refine_chains": 2, "refine_noise": 0.1, "eot": 3}):
        with pytest.raises(RunError, match="not now"):
            opened.audit(**settings)  # type: ignore[arg-type]
    assert asked == [(500, 1, None), (7, 3, opened.id)]
    assert refined == [(None, 10), ((5, 2), 3)]


def test_a_warning_of_the_command_is_one_of_python(opened: Run) -> None:
    with pytest.warns(UserWarning, match="^cross-entropy of unscaled logits is prone to gradient masking") as caught:
        opened.attack("fgsm", 0.0, n=5)
    assert [one.filename for one in caught] == [__file__]


REFUSED: dict[str, Callable[[Run], object]] = {
    "accuracy: `split`: must be 'train', 'validation' or 'test'": lambda run: run.accuracy(split="tset"),  # type: ignore[arg-type]
    "accuracy: `n`: must be greater than or equal to 1": lambda run: run.accuracy(n=0),
    "ood: `agianst`: unexpected keyword": lambda run: run.ood(agianst=["interp"]),  # type: ignore[call-arg]
    "no set of images 'x'": lambda run: run.ood(["x"]),
    "no attack 'pdg'": lambda run: run.attack("pdg"),
    "attack: fgsm has no steps": lambda run: run.attack("fgsm", steps=3),
    r"8\.0 is more than the whole range of a pixel": lambda run: run.attack("pgd", 8),
    "attack: `restarts`: must be": lambda run: run.attack("pgd", restarts=0),
    "fgsm has no l2 form": lambda run: run.attack("fgsm", norm="l2"),
    "audit: `n`": lambda run: run.audit(n=-1),
    "accuracy: `refine`: must be greater than or equal to 0": lambda run: run.accuracy(refine=-1),
    "refine_chains and refine_noise need refine": lambda run: run.attack("fgsm", refine_noise=0.1),
    "without noise all 2 chains of an image are the same": lambda run: run.audit(refine=1, refine_chains=2, refine_noise=0),
    "carlini: `aim`: must be 'untargeted', 'next' or 'least-likely'": lambda run: run.carlini("any"),  # type: ignore[arg-type]
    "generate: `top_share`: must be less than or equal to 1": lambda run: run.generate(top_share=2),
    "no run zzz": lambda run: run.generate(features="zzz"),
    "accuracy: `device`: must be 'auto', 'cpu' or 'cuda'": lambda run: run.accuracy(device="gpu"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_measured_is_refused(message: str, opened: Run) -> None:
    with pytest.raises(GmmcError, match=message) as error:
        REFUSED[message](opened)
    assert error.value.hint and (isinstance(error.value, (RecipeError, RunError)))
