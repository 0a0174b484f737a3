"""Pickles as data, one operation at a time; whole files, hostile ones too, are in test_torch_file.py."""

import io
import pickle
from collections import OrderedDict
from typing import Any

import pytest

from gmmcli.errors import CheckpointError
from gmmcli.importer.pickled import read_pickle


def read(thing: Any) -> Any:
    return read_pickle(io.BytesIO(pickle.dumps(thing, 2)))[0]


@pytest.mark.parametrize(
    "plain",
    [None, True, 0, 255, 256, -1, 65_536, 2**70, 1.5, "", "é" * 300, (), (1,), (1, 2, 3, 4), [], [1], [1, [2, [3]]], {}, {"a": {1: ()}}],
)
def test_plain_values_are_what_they_were(plain: Any) -> None:
    found = read(plain)
    assert found == plain
    assert type(found) is type(plain)


def test_what_was_one_object_is_one_object() -> None:
    inner = [1]
    found = read({"a": inner, "b": inner})
    assert found["a"] is found["b"]


def test_ordered_dictionaries_and_sets_are_plain_and_attributes_are_dropped() -> None:
    state = OrderedDict(b=1, a=2)
    state._metadata = {"version": 1}
    assert list(read(state).items()) == [("b", 1), ("a", 2)]
    assert read({"names": {7}}) == {"names": [7]}


def test_the_stream_stands_behind_the_pickle() -> None:
    stream = io.BytesIO(pickle.dumps([1], 2) + pickle.dumps([2], 2) + b"rest")
    assert [read_pickle(stream)[0], read_pickle(stream)[0], stream.read()] == [[1], [2], b"rest"]


@pytest.mark.parametrize("thing", [print, io.BytesIO, ValueError("x"), object(), 1 + 2j, b"bytes", slice(1), range(3)])
def test_whatever_has_a_class_is_refused_by_its_name(thing: Any) -> None:
    with pytest.raises(
        CheckpointError, match=r"it asks for '[\w.]+', which no checkpoint of GMMC or JEM needs; nothing of the file was run"
    ):
        read(thing)
