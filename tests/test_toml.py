from pathlib import Path

import pytest

from gmmcli.errors import RecipeError
from gmmcli.toml import DEEPEST, LONGEST, MOST_BITS, check, parse, read


def test_a_text_becomes_plain_tables() -> None:
    assert parse('a = 1\n[b]\nc = ["x", 2.5]', "x.toml") == {"a": 1, "b": {"c": ["x", 2.5]}}


BEYOND = {
    "no TOML": ("a = ", "x.toml is not valid TOML: Invalid value (at end of document)"),
    "500 brackets": ("a = " + "[" * 500 + "]" * 500, "x.toml is not valid TOML: TOML inline arrays/tables are nested more than"),
    "5,000 digits": ("a = " + "9" * 5000, "x.toml is not valid TOML: Exceeds the limit (4300 digits)"),
    "4,000 hexadecimal digits": ("a = 0x" + "f" * 4000, "x.toml "),
    "9,000 binary digits": ("a = [[0b" + "1" * 9000 + "]]", "x.toml has an integer of more than 1,024 bits"),
    "a key of 5,000 parts": ("a" + ".a" * 5000 + " = 1", "x.toml is not valid TOML: TOML key has more than"),
    "a key of 100 parts": ("a" + ".a" * 100 + " = 1", "x.toml nests tables and lists more than 16 deep"),
    "a long text": ("#" * (LONGEST + 1), "x.toml is longer than 262,144 characters"),
}


@pytest.mark.parametrize("name", BEYOND)
def test_what_is_beyond_the_limits_is_refused(name: str) -> None:
    text, message = BEYOND[name]
    with pytest.raises(RecipeError) as error:
        parse(text, "x.toml")
    assert error.value.message.startswith(message)
    assert len(error.value.message) < 200


def test_what_is_just_within_the_limits_is_taken() -> None:
    assert parse("#" * LONGEST, "x") == {}
    deepest = "a = " + "[" * (DEEPEST - 1) + "]" * (DEEPEST - 1)
    assert parse(deepest, "x") and parse(f"a = {2**MOST_BITS - 1}", "x") == {"a": 2**MOST_BITS - 1}
    with pytest.raises(RecipeError, match="16 deep"):
        parse(deepest.replace("[]", "[[]]"), "x")
    with pytest.raises(RecipeError, match="1,024 bits"):
        check({"a": -(2**MOST_BITS)}, "x")


def test_of_a_long_file_no_more_is_read_than_shows_it(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("#" * (3 * LONGEST))
    assert len(read(tmp_path / "x.toml")) == LONGEST + 1


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", None], ids=["no text", "no file"])
def test_a_file_that_cannot_be_read_is_said(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"x\.toml cannot be read \("):
        read(path)
