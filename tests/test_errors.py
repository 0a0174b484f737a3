import inspect
from signal import SIGHUP, SIGINT, SIGTERM

import pytest

from gmmcli import errors
from gmmcli.errors import (
    CheckpointError,
    DataError,
    DivergedError,
    GmmcError,
    MissingPartError,
    RecipeError,
    RunError,
    StoppedError,
    StorageError,
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
