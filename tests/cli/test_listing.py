from pathlib import Path

from gmmcli.cli.listing import Row, rows, shown


def row(**changed: object) -> Row:
    return Row("id", "r", 1, "finished", 1200, 0.5, None, None, None, None, dict(changed))


def test_a_few_keys_are_shown_and_the_others_counted_but_in_a_wide_table() -> None:
    many = row(a=True, b=0.5, c="x y", d=[1, 2], e=5, f=6)
    assert many.cells() == ["id", "finished", "step 1,200", "seed 1", "test accuracy 50.00%", "a=true b=0.5 c=x y d=[1, 2] and 2 more"]
    assert many.wide()[-1] == "a=true b=0.5 c=x y d=[1, 2] e=5 f=6"


def test_a_run_is_called_what_run_finds_it_by() -> None:
    assert shown(Path("runs/a"), Path("runs")) == "a"
    assert shown(Path("runs/study/a"), Path("runs")) == "runs/study/a"


def test_what_is_no_run_of_ours_has_a_row_too(tmp_path: Path) -> None:
    for name, recipe in (("a", "name = 3"), ("b", "["), ("c", 'name = "x"')):
        (tmp_path / name / "results").mkdir(parents=True)
        (tmp_path / name / "recipe.toml").write_text(recipe)
        (tmp_path / name / "results" / "eval-accuracy.json").write_text('{"values": []}')
    (tmp_path / "c" / "provenance.json").write_text('{"wall_time_s": "long", "created": 3}')
    found = rows([tmp_path / name for name in "abc"], tmp_path)
    assert [(one.recipe, one.status, one.accuracy, one.hours, one.created) for one in found] == [
        (None, "unknown", None, None, None),
        (None, "unknown", None, None, None),
        ("x", "unknown", None, None, None),
    ]
