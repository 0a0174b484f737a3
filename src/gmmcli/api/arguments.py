"""The arguments of calls from Python: what they may be, and what is said of others."""

import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from inspect import signature
from os import PathLike
from typing import Any, Literal, ParamSpec, TypeVar

import numpy as np
from pydantic import ConfigDict, ValidationError, validate_call
from torch import Tensor

from gmmcli.errors import RecipeError
from gmmcli.progress import saying

Name = str | PathLike[str]
Images = Tensor | np.ndarray | Name | Sequence[Name]
"""Bytes of shape (n, channel, height, width), as a tensor or an array; or an image file, or several."""
SplitName = Literal["train", "validation", "test"]
Origin = Literal["noise", "buffer"]
Result = dict[str, Any]
"""What a command answers to ``--json``: command, run, step, dataset, split, n, protocol and values."""
P = ParamSpec("P")
T = TypeVar("T")


def checked(method: Callable[P, T]) -> Callable[P, T]:
    """Check the arguments of every call by their types: a wrong one is a RecipeError. What is said meanwhile is a warning of Python's."""
    call, names = validate_call(config=ConfigDict(arbitrary_types_allowed=True))(method), list(signature(method).parameters)

    @wraps(method)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        said: list[str] = []
        try:
            with saying(said.append):
                return call(*args, **kwargs)
        except ValidationError as error:
            raise _refusal(error, method.__name__, names) from error
        finally:
            for line in said:
                warnings.warn(line.removeprefix("gmmc: ").removeprefix("warning: "), stacklevel=2)

    return called


def _refusal(error: ValidationError, method: str, names: list[str]) -> RecipeError:
    """The error of the first argument that is wrong."""
    found = error.errors()
    at = found[0]["loc"][0]
    name = names[at] if isinstance(at, int) and at < len(names) else at
    why = list(dict.fromkeys(one["msg"] for one in found if one["loc"][0] == at))  # of a union, a message for each of its types
    said = " or ".join([why[0], *(text.removeprefix("Input should be ") for text in why[1:])]).replace("Input should be", "must be")
    return RecipeError(f"{method}: `{name}`: {said[:1].lower()}{said[1:]}", f"see help(gmmcli.Run.{method})")
