import json
import os
import re
from pathlib import Path

import pytest
import torch
from animals import Gmmc

from gmmcli import __version__
from gmmcli.cli.env import EXTRA


@pytest.fixture
def telling(gmmc: Gmmc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that tells whose it is, with weights and settings in it."""
    home = tmp_path / "home" / "lovelace"
    home.mkdir(parents=True)
    for name in [name for name in os.environ if name.startswith("GMMC_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "HOME": home,
        "USER": "lovelace",
        "GMMC_RUNS_DIR": home / "runs",
        "GMMC_RUN": "lovelace",
        "GMMC_OFFLINE": 1,
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("TORCH_HOME", str(home / "torch"))
    monkeypatch.setattr("socket.gethostname", lambda: "lovelaces-laptop")
    monkeypatch.setattr("platform.node", lambda: "lovelaces-laptop")
    return home


def test_versions_and_device_are_those_in_use(gmmc: Gmmc) -> None:
    values = json.loads(gmmc("env", "--json").stdout)["values"]
    assert values["versions"]["gmmcli"] == __version__
    assert values["versions"]["torch"] == torch.__version__
    assert values["threads"] == torch.get_num_threads()
    assert None not in values["versions"].values()
    assert values["cores"] == os.cpu_count()
    assert values["memory_bytes"] > 2**28


def test_weights_are_there_or_not(gmmc: Gmmc, telling: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (None, telling):
        monkeypatch.setattr("gmmcli.metrics.features.efficientnet.default_weights", lambda place=place: place)
        found = json.loads(gmmc("env", "--json").stdout)["values"]["weights"]
        assert found == {"inception": False, "efficientnet-lite0": place is not None}
    weights = telling / "torch" / "hub" / "checkpoints" / "pt_inception-2015-12-05-6726825d.pth"
    weights.parent.mkdir(parents=True)
    weights.touch()
    assert json.loads(gmmc("env", "--json").stdout)["values"]["weights"]["inception"] is True


@pytest.mark.usefixtures("telling")
def test_text_is_a_fenced_block_with_a_line_a_fact_and_says_what_to_do_with_it(gmmc: Gmmc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("NO_COLOR", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    said = gmmc("env")
    first, *lines, last = said.stdout.splitlines()
    assert (first, last) == ("```text", "```")
    found = {name: value for name, value in (line.split(maxsplit=1) for line in lines if line)}
    assert [*found] == ["gmmc", "python", "system", "cpu", "memory", "cuda", "precision", "packages", "extras", "weights", "variables"]
    assert found["gmmc"].startswith(__version__)
    assert f"torch {torch.__version__}, " in found["packages"]
    assert found["variables"].startswith("GMMC_OFFLINE=1, GMMC_RUN=(set), GMMC_RUNS_DIR=(set), ")
    assert "OMP_NUM_THREADS=1" in found["variables"]
    assert "None" not in said.stdout
    assert said.stderr == "gmmc: paste this block, fences and all, into the issue\n"


def test_it_names_no_path_user_or_host(gmmc: Gmmc, telling: Path) -> None:
    for words in (["env"], ["env", "--json"]):
        said = gmmc(*words).stdout
        assert not [word for word in ("lovelace", str(telling.parent), str(Path(__file__).parents[2]), str(Path.home())) if word in said]


@pytest.mark.parametrize(
    ("built", "said"), [(None, "not available: torch was built without it"), ("13.0", "for cuda 13.0, and finds no usable GPU")]
)
def test_cuda_that_is_not_there_is_told_in_words(built: str | None, said: str, gmmc: Gmmc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert said in gmmc("env").stdout


@pytest.mark.parametrize(
    ("able", "speedup", "said"),
    [
        (False, 9.0, "auto is fp32: this cpu has no bfloat16 instructions"),
        (True, 1.1, "auto is fp32: a convolution in bfloat16 is 1.1 times as fast as in float32"),
        (True, 2.5, "auto is bf16: a convolution in bfloat16 is 2.5 times as fast as in float32"),
    ],
)
def test_the_precision_that_auto_chooses_has_its_reason(
    able: bool, speedup: float, said: str, gmmc: Gmmc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("gmmcli.core.compute.has_bf16", lambda device: able)
    monkeypatch.setattr("gmmcli.core.compute.bf16_speedup", lambda: speedup)
    assert said in gmmc("env").stdout


def test_extras_are_those_of_the_package(gmmc: Gmmc, monkeypatch: pytest.MonkeyPatch) -> None:
    extras = ['numpy>=2; extra == "sums"', "no-such-package==1; extra == 'sums'", 'pillow>=11 ; extra == "dev"', 'rich; extra == "a"']
    monkeypatch.setattr("importlib.metadata.requires", lambda name: ["torch>=2", *extras])
    found = json.loads(gmmc("env", "--json").stdout)["values"]["extras"]
    assert ([*found], [*found["sums"]], found["sums"]["no-such-package"]) == (["sums", "a"], ["numpy", "no-such-package"], None)
    assert re.search(r"extras +sums: no; a: rich \d", gmmc("env").stdout)
    assert EXTRA.fullmatch("torch>=2") is None
