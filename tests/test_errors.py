import inspect
from signal import SIGHUP, SIGINT, SIGTERM

import pytest

from gmmcli import errors
from gmmcli.errors import (
    LONGEST,
    LONGEST_QUOTED,
    CheckpointError,
    DataError,
    DivergedError,
    GmmcError,
    MissingPartError,
    RecipeError,
    RunError,
    StoppedError,
    StorageError,
    quoted,
    shortened,
    visible,
)

EXIT_CODES = {
    GmmcError: 1,
    RecipeError: 2,
    DataError: 3,
    RunError: 1,
    MissingPartError: 4,
    DivergedError: 5,
    CheckpointError: 6,
    StorageError: 7,
    StoppedError: 130,
}


def test_table_of_exit_codes_knows_every_error() -> None:
    assert {error for _, error in inspect.getmembers(errors, inspect.isclass) if issubclass(error, Exception)} == set(EXIT_CODES)


@pytest.mark.parametrize(("error", "code"), EXIT_CODES.items())
def test_errors_carry_exit_code_message_and_hint(error: type[GmmcError], code: int) -> None:
    raised = error("no images in x.npz", "check the path")
    assert isinstance(raised, GmmcError)
    assert raised.exit_code == code
    assert str(raised) == raised.message == "no images in x.npz"
    assert raised.hint == "check the path"


def test_hint_is_optional() -> None:
    assert GmmcError("broken").hint == ""


def test_a_stop_exits_as_a_shell_counts_the_signal() -> None:
    assert [StoppedError("stopped", "", number).exit_code for number in (SIGHUP, SIGINT, SIGTERM)] == [129, 130, 143]


def test_a_message_and_a_hint_without_end_keep_both_ends() -> None:
    raised = GmmcError("`name` must be short, got " + "y" * 10**6 + " (my.toml)", "one of: " + "x, " * 10**5 + "or z")
    assert len(raised.message) == len(raised.hint) == LONGEST
    assert raised.message.startswith("`name` must be short, got yyy") and raised.message.endswith("yyy (my.toml)")
    assert raised.hint.startswith("one of: x, ") and raised.hint.endswith("x, or z")
    assert str(raised) == raised.message


def test_a_quoted_value_is_as_python_writes_it_and_no_longer_than_a_line() -> None:
    assert quoted("two\nlines\x1b") == r"'two\nlines\x1b'"
    assert quoted([1] * 99).startswith("[1, 1, 1") and quoted([1] * 99).endswith(", 1, 1]")
    assert len(quoted("y" * 10**6)) == LONGEST_QUOTED
    assert shortened("short", 5) == "short" and len(shortened("longer than nine", 9)) == 9


def test_what_a_terminal_would_obey_is_made_visible() -> None:
    assert visible("plain, naïve, 猫, C++") == "plain, naïve, 猫, C++"
    assert visible("a\x1b[31mb\x07\r\n\u202ec\ud800\x9b") == r"a\x1b[31mb\x07\r\n\u202ec\ud800\x9b"
    raised = GmmcError("no class 'a\x1b[2J'", "did you mean\nb?")
    assert (raised.message, raised.hint) == (r"no class 'a\x1b[2J'", r"did you mean\nb?")
