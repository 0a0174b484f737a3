import json
from pathlib import Path

import pytest
import torch
from animals import Gmmc

from gmmcli import __version__


def test_versions_and_device_are_those_in_use(gmmc: Gmmc) -> None:
    values = json.loads(gmmc("env", "--json").stdout)["values"]
    assert values["versions"]["gmmcli"] == __version__
    assert values["versions"]["torch"] == torch.__version__
    assert values["threads"] == torch.get_num_threads()
    assert None not in values["versions"].values()


def test_inception_weights_are_named_where_they_are(gmmc: Gmmc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert json.loads(gmmc("env", "--json").stdout)["values"]["inception_weights"] is None
    weights = tmp_path / "hub" / "checkpoints" / "pt_inception-2015-12-05-6726825d.pth"
    weights.parent.mkdir(parents=True)
    weights.touch()
    assert json.loads(gmmc("env", "--json").stdout)["values"]["inception_weights"] == str(weights)


def test_text_has_a_line_a_fact(gmmc: Gmmc) -> None:
    lines = gmmc("env").stdout.splitlines()
    assert f"gmmcli {__version__}" in next(line for line in lines if line.startswith("versions"))
    assert any(line.startswith("fast_bf16") for line in lines)


def test_efficientnets_weights_are_named_where_they_are(gmmc: Gmmc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (None, tmp_path):
        monkeypatch.setattr("gmmcli.metrics.features.efficientnet.default_weights", lambda place=place: place)
        said = json.loads(gmmc("env", "--json").stdout)["values"]["efficientnet_weights"]
        assert said == (str(place) if place else None)
