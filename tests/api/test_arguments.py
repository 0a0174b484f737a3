"""Calls are checked by their types."""

import sys
import warnings

import numpy as np
import pytest
from torch import Tensor

from gmmcli.api.arguments import checked
from gmmcli.errors import RecipeError
from gmmcli.progress import say
from gmmcli.types import Count


@checked
def call(image: Tensor | np.ndarray | str, n: Count = 1, *, aloud: str = "") -> int:
    """Something typed."""
    if aloud:
        say(f"gmmc: warning: {aloud}")
    return n


def test_what_is_right_goes_through() -> None:
    assert call("x") == 1
    assert call(np.zeros(3), 2) == call(image="x", n=2) == 2
    assert call.__name__ == "call" and call.__doc__ == "Something typed."


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ((3,), {}, r"call: `image`: must be an instance of Tensor or an instance of ndarray or a valid string"),
        (("x", 0), {}, r"call: `n`: must be greater than or equal to 1"),
        (("x",), {"n": "two"}, r"call: `n`: must be a valid integer"),
        (("x",), {"m": 2}, r"call: `m`: unexpected keyword argument"),
        ((), {}, r"call: `image`: missing required argument"),
    ],
)
def test_what_is_wrong_is_one_sentence_that_names_it(arguments: tuple[object, ...], settings: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as error:
        call(*arguments, **settings)  # type: ignore[arg-type]
    assert error.value.hint == "see help(gmmcli.Run.call)"


def test_what_is_said_is_a_warning_at_the_line_of_the_caller(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        line = sys._getframe().f_lineno + 1
        assert call("x", aloud="masked") == 1
    assert [(str(one.message), one.filename, one.lineno) for one in caught] == [("masked", __file__, line)]
    assert capsys.readouterr() == ("", "")
    say("afterwards it is printed")
    assert capsys.readouterr().err == "afterwards it is printed\n"
