"""What uses the network, says so, and may be forbidden."""

import json
import os
from pathlib import Path

import publishing
import pytest
from animals import Gmmc

from gmmcli.data import remote
from gmmcli.data.downloaded import MNIST

SVHN_MISSING = "svhn is not in data and may not be downloaded: --offline or GMMC_OFFLINE forbids it; it needs data/train_32x32.mat"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GMMC_OFFLINE", "")  # put back after `--offline` has set it


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "urlopen", lambda *words, **more: pytest.fail("the network was used"))


@pytest.mark.parametrize(
    "words",
    [
        ("train", "svhn_gen"),
        ("data", "check", "svhn"),
        ("data", "download", "svhn"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("how", ["option", "environment"])
@pytest.mark.usefixtures("no_network")
def test_offline_forbids_downloads(words: tuple[str, ...], how: str, gmmc: Gmmc, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "environment":
        monkeypatch.setenv("GMMC_OFFLINE", "1")
    result = gmmc(*(["--offline"] if how == "option" else []), *words)
    assert (result.exit_code, result.stdout) == (3, "")
    assert SVHN_MISSING in result.stderr
    assert "http://ufldl.stanford.edu/housenumbers/train_32x32.mat (sha256 435e94d69a87fde4fd4d7f3dd208dfc3" in result.stderr
    assert os.environ["GMMC_OFFLINE"] == "1"  # as child processes have it
    assert [*Path().rglob("*")] == []


@pytest.mark.usefixtures("no_network")
def test_a_dry_run_downloads_nothing_and_plans_by_what_is_known(gmmc: Gmmc) -> None:
    result = gmmc("train", "mnist_softmax", "--set", "model.backbone.width=1", "--set", "stages.0.epochs=2", "--dry-run", "--json")
    assert result.exit_code == 0
    values = json.loads(result.stdout)["values"]
    assert values["n_steps"] == 2 * (54_000 // 64)
    assert values["warnings"] == ["mnist (12 MB) is not in data, and `gmmc data download mnist` fetches it; its size is known"]
    assert [*Path().rglob("*")] == []


def test_download_fetches_what_is_absent_or_damaged_and_keeps_the_rest(gmmc: Gmmc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publishing.mnist(monkeypatch, tmp_path / "server")
    result = gmmc("data", "download", "mnist", "--root", "there")
    assert result.exit_code == 0
    assert [line.split("  ")[0] for line in result.stdout.splitlines()] == [f"there/{file.place}" for file in MNIST.published.files]
    assert result.stdout.count(" bytes, downloaded, sha256 as published") == 4
    assert result.stderr.count("gmmc: downloading mnist: ") == 4
    damaged, lost = (Path("there", file.place) for file in MNIST.published.files[:2])
    damaged.write_bytes(b"junk")
    lost.unlink()
    document = json.loads(gmmc("data", "download", "mnist", "--root", "there", "--json").stdout)
    assert (document["command"], document["dataset"]) == ("data download", "mnist")
    for about, file, again in zip(document["values"]["files"], MNIST.published.files, [True, True, False, False], strict=True):
        assert about == file._asdict() | {"place": f"there/{file.place}", "downloaded": again}
        assert Path(about["place"]).stat().st_size == about["size"]
    assert gmmc("--offline", "data", "check", "mnist").exit_code == 3  # another root
    assert gmmc("--offline", "data", "download", "mnist", "--root", "there").exit_code == 0


@pytest.mark.parametrize("name", ["digits", "celeba", "npz:x.npz", "zzz"])
@pytest.mark.usefixtures("no_network")
def test_what_cannot_be_downloaded_exits_2(name: str, gmmc: Gmmc) -> None:
    result = gmmc("data", "download", name)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        f"gmmc: error: '{name}' is not a dataset that can be downloaded",
        "gmmc: give one of mnist, cifar10, cifar100, svhn",
    ]
