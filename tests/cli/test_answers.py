"""Answers of --json are as docs/schema/ says, and the schemas refuse what is not."""

import json
import shutil
from collections.abc import Iterator
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
import typer
from animals import Gmmc, Trained, leaves
from answers import FOLDER, check, schema_name, schemas, validator
from jsonschema import Draft202012Validator

from gmmcli.cli.app import app
from gmmcli.cli.options import answer

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="needs the checkout")
COMMON, ATTACK = "common.json", "attack.json"
"""What several schemas share, and the attacks of installed packages."""
DRY_RUNS = ("train --dry-run", "study --dry-run")
"""Options that make a command answer something else."""
NAMES = sorted(set(schemas()) - {COMMON})


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Every schema within a schema that says which keys an object has."""
    if isinstance(schema, dict) and "additionalProperties" in schema and "properties" in schema:
        yield schema
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from objects(part)


def resolved(schema: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
    """A schema, or what it refers to with its own words added, and the file that it is in."""
    if "$ref" not in schema:
        return schema, name
    file, _, pointer = schema["$ref"].partition("#")
    found = schemas()[file or name]
    for key in pointer.split("/")[1:]:
        found = found[key]
    own = {key: value for key, value in schema.items() if key not in ("$ref", "properties")}
    return resolved(found | own | {"properties": found.get("properties", {}) | schema.get("properties", {})}, file or name)


def example(schema: dict[str, Any], name: str) -> Any:
    """A value that a schema allows, with every key that it names."""
    schema, name = resolved(schema, name)
    if "anyOf" in schema:
        return example(schema["anyOf"][-1], name)
    if "const" in schema or "enum" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    kind = schema.get("type", "null")
    match kind if isinstance(kind, str) else kind[0]:
        case "object":
            return {key: example(part, name) for key, part in schema.get("properties", {}).items()}
        case "array":
            return [example(schema["items"], name) for _ in range(schema.get("minItems", 0))]
        case "string":
            return "attack other"  # the one pattern there is
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
    return None


def mistaken(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Copies of an answer of which a value, or one of ``values`` or ``protocol``, has another type, each with its key."""
    for key, value in document.items():
        yield key, document | {key: "text" if isinstance(value, bool) else True}
        if key in ("values", "protocol") and isinstance(value, dict):
            yield from ((f"{key}.{inner}", document | {key: wrong}) for inner, wrong in mistaken(value))


def test_every_command_that_answers_has_a_schema_and_every_schema_a_command() -> None:
    answering = [name for name, command in leaves(typer.main.get_command(app)) if "json" in {option.name for option in command.params}]
    assert len(answering) > 30
    assert {schema_name(command) for command in (*answering, *DRY_RUNS)} | {ATTACK} == set(NAMES)


def test_an_attack_of_another_package_has_that_of_attacks() -> None:
    assert schema_name("attack other") == ATTACK
    check(example(schemas()[ATTACK], ATTACK))


@pytest.mark.parametrize("name", [COMMON, *NAMES])
def test_a_schema_is_one_and_says_what_every_key_is(name: str) -> None:
    schema = schemas()[name]
    Draft202012Validator.check_schema(schema)
    assert schema["$id"] == name and schema["title"] and schema["description"]
    for part in objects(schema):
        assert set(part.get("required", ())) <= set(part["properties"])
        for key, of_key in part["properties"].items():
            assert {"description", "const"} & set(resolved(of_key, name)[0]) or key == "values", key


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_refuses_an_answer_without_a_key_with_another_or_of_another_type(name: str) -> None:
    schema, allows = resolved(schemas()[name], name)[0], validator(name).is_valid
    whole = example(schema, name)
    assert allows(whole)
    assert not allows(whole | {"unknown": "text"})
    for key in schema["required"]:
        assert not allows({one: value for one, value in whole.items() if one != key}), key
    for key, wrong in mistaken(whole):
        assert not allows(wrong), key


def test_what_is_not_as_the_schema_says_is_named(trained: Trained) -> None:
    check(trained.answer)
    for change, message in (
        ({"values": trained.answer["values"] | {"accuracy": "98%"}}, r"train: \$.values.accuracy: '98%' is not of type"),
        ({"ran": "x"}, r"train: \$: Additional properties are not allowed \('ran' was unexpected\)"),
    ):
        with pytest.raises(AssertionError, match=message):
            check(trained.answer | change)


def test_saved_results_are_as_the_answers(trained: Trained, gmmc: Gmmc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmmcli.evaluate.plots._draw", lambda figure, *paths: [path.touch() for path in paths])
    run = Path(shutil.copytree(trained.path, tmp_path / "run"))
    for words in (("eval", "calibrate"), ("attack", "fgsm")):
        answer = json.loads(gmmc(*words, "--run", run, "--json", "-q").stdout)
        saved = [json.loads(path.read_text()) for path in (run / "results").glob(f"{'-'.join(words)}*.json")]
        assert saved == [answer]
    for path in (run / "results").glob("*.json"):
        check(json.loads(path.read_text()))


def test_a_number_that_is_not_finite_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    answer({"values": {"nll": nan, "nll_ci95": (0.5, inf), "n": 3, "name": "nan"}})
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {
        "values": {"nll": None, "nll_ci95": [0.5, None], "n": 3, "name": "nan"}
    }


def test_the_log_of_a_run_may_hold_numbers_that_are_not_finite(trained: Trained, gmmc: Gmmc, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained.path, tmp_path / "run"))
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99, "loss": NaN, "energy_data": -Infinity}\n')
    for words in (("runs", "show"), ("watch",)):
        answer = json.loads(gmmc(*words, "--run", run, "--json").stdout, parse_constant=pytest.fail)
        assert answer["values"]["last_metrics"] == {"step": 99, "loss": None, "energy_data": None}
