"""Files of torch.save in both formats: tensors come back bit for bit, and nothing that a file says is executed."""

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import FORMS, Form, known_as, margin, save, save_gmmc, simplex

from gmmcli.errors import CheckpointError
from gmmcli.importer.pickled import Record, Strided
from gmmcli.importer.torch_file import MAGIC, PROTOCOL, TorchFile, opened


def refusal(path: Path) -> str:
    """The one sentence with which a file is refused, its tensors included."""
    with pytest.raises(CheckpointError) as raised, opened(path) as file:
        for value in file.object.values() if isinstance(file.object, dict) else [file.object]:
            file.tensor(value)
    assert raised.value.message.startswith(f"{path.name} cannot be imported: ")
    assert "\n" not in raised.value.message
    assert len(raised.value.message) < 300
    return raised.value.message


TENSORS = {
    "float32": torch.randn(3, 4),
    "float64": torch.randn(2, dtype=torch.float64),
    "float16": torch.randn(5).half(),
    "bfloat16": torch.randn(5).bfloat16(),
    "int64": torch.arange(7),
    "int32": torch.arange(7, dtype=torch.int32),
    "uint8": torch.arange(7, dtype=torch.uint8),
    "bool": torch.tensor([True, False]),
    "scalar": torch.tensor(3.0),
    "transposed": torch.randn(3, 4).T,
    "a part": torch.randn(10)[2:8:3],
    "empty": torch.empty(0, 3),
}


@pytest.mark.parametrize("form", FORMS)
def test_tensors_come_back_bit_for_bit(tmp_path: Path, form: Form) -> None:
    with opened(save(OrderedDict(TENSORS), tmp_path / "x.pt", form)) as file:
        assert file.form == form
        assert list(file.object) == list(TENSORS)
        for name, tensor in TENSORS.items():
            found = file.tensor(file.object[name])
            assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape), name
            assert torch.equal(found, tensor), name


@pytest.mark.parametrize("form", FORMS)
def test_plain_values_come_back(tmp_path: Path, form: Form) -> None:
    plain = {"a": [1, -2, 300, 70_000, 2**40, 2.5, True, False, None], "b": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)), "c": {3: "é"}}
    with opened(save(plain, tmp_path / "x.pt", form)) as file:
        assert file.object == plain


@pytest.mark.parametrize("form", FORMS)
def test_a_layer_is_a_record_of_its_attributes(tmp_path: Path, form: Form) -> None:
    with known_as("LDALayer.LDALayer") as layer:
        path = save(margin(simplex(), layer), tmp_path / "x.pt", form)
    with opened(path) as file:
        assert isinstance(file.object, Record)
        assert file.object.state["num_classes"] == 10
        assert torch.equal(file.tensor(file.object.state["_parameters"]["centers"]), simplex())


@pytest.mark.parametrize("form", FORMS)
def test_tensors_that_were_on_a_gpu_are_read_without_one(tmp_path: Path, form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:7")
    with opened(save({"x": torch.arange(3)}, tmp_path / "x.pt", form)) as file:
        assert file.tensor(file.object["x"]).tolist() == [0, 1, 2]
    assert b"cuda:7" in (tmp_path / "x.pt").read_bytes()


class Attack:
    """Something that runs a function when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> Any:
        return self.reduced


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """A file that must not appear."""
    path = tmp_path / "it ran"
    yield path
    assert not path.exists()


@pytest.mark.parametrize("form", FORMS)
def test_functions_that_a_file_names_are_refused_by_name_and_not_run(tmp_path: Path, marker: Path, form: Form) -> None:
    command = f"touch '{marker}'"
    attacks = {
        "posix.system": Attack(os.system, command),
        "__builtin__.eval": Attack(eval, f"open({str(marker)!r}, 'w')"),
        "__builtin__.exec": Attack(exec, f"open({str(marker)!r}, 'w')"),
        "__builtin__.getattr": Attack(getattr, Attack(__import__, "os"), "system"),
        "io.open": Attack(io.open, str(marker), "w"),
        "functools.partial": Attack(partial(os.system, command)),
        "torch.serialization.load": Attack(torch.load, str(marker)),
        "torch.jit._serialization.load": Attack(torch.jit.load, str(marker)),
    }
    for name, attack in attacks.items():
        for number, document in enumerate(
            [attack, {"model_state_dict": [(attack,)]}, OrderedDict(x=attack), {"margin": {"centers": attack}}]
        ):
            said = refusal(save(document, tmp_path / f"{name}{number}.pt", form))
            assert f"it asks for '{name}', which no checkpoint of GMMC or JEM needs; nothing of the file was run" in said
    pickled = pickle.dumps(attacks["posix.system"])
    pickle.loads(pickled)  # noqa: S301 - it is this test's own, and shows that the attack works where it is unpickled
    assert marker.exists()
    marker.unlink()


def test_other_layers_are_refused_by_name(tmp_path: Path) -> None:
    for form in FORMS:
        said = refusal(save({"model": torch.nn.Linear(2, 2)}, tmp_path / f"{form}.pt", form))
        assert "it asks for 'torch.nn.modules.linear.Linear'" in said


def test_a_layer_is_not_called_like_a_function(tmp_path: Path) -> None:
    with known_as("LDALayer.LDALayer") as layer:
        path = save({"x": Attack(layer, 2, 2)}, tmp_path / "x.pt", "zip")
    assert "its pickle is broken" in refusal(path)


def legacy(content: bytes, keys: list[str] | None = None, storages: bytes = b"") -> bytes:
    """A file of the older format around the pickle of its object."""
    head = [MAGIC, PROTOCOL, {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {}}]
    return b"".join(pickle.dumps(part, 2) for part in head) + content + pickle.dumps(keys or [], 2) + storages


class Pickler(pickle.Pickler):
    """A pickler of the older format, for persistent ids of any kind."""

    def persistent_id(self, thing: Any) -> Any:
        return thing.id if isinstance(thing, Persistent) else None


class Persistent:
    def __init__(self, *saved: Any) -> None:
        self.id = saved


def pickled(thing: Any) -> bytes:
    stream = io.BytesIO()
    Pickler(stream, 2).dump(thing)
    return stream.getvalue()


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_source_code_beside_a_class_is_not_executed(tmp_path: Path, marker: Path) -> None:
    source = f"import os\nos.system(\"touch '{marker}'\")\nclass LDALayer: pass\n"
    with known_as("LDALayer.LDALayer") as layer:
        content = pickled([Persistent("module", layer, str(marker), source)])
        other = pickled([Persistent("module", Persistent("module", layer, None, None), str(marker), source)])
    with opened(write(tmp_path / "x.pt", legacy(content))) as file:
        assert file.object == ["LDALayer.LDALayer"]
    with opened(write(tmp_path / "y.pt", legacy(other))) as file:
        assert file.object == ["LDALayer.LDALayer"]
    assert "posix.system" in refusal(write(tmp_path / "z.pt", legacy(pickled([Persistent("module", os.system, "x.py", source)]))))


STORAGE = ("storage", torch.FloatStorage, "0", "cpu", 4, None)


@pytest.mark.parametrize(
    "saved",
    [
        (),
        ("storage",),
        ("what", torch.FloatStorage, "0", "cpu", 4, None),
        ("module", torch.FloatStorage, None, None),
        (*STORAGE[:5], ("0", 0, 2)),
        ("storage", "torch.FloatStorage", "0", "cpu", 4, None),
        ("storage", OrderedDict, "0", "cpu", 4, None),
        ("storage", torch.FloatStorage, ("0",), "cpu", 4, None),
        ("storage", torch.FloatStorage, "0", "cpu", -4, None),
        ("storage", torch.FloatStorage, "0", "cpu", True, None),
        ("storage", torch.FloatStorage, "0", "cpu", 10**600, None),
    ],
)
def test_persistent_ids_of_other_forms_are_one_sentence(tmp_path: Path, saved: tuple[object, ...]) -> None:
    assert "its pickle is broken" in refusal(write(tmp_path / "x.pt", legacy(pickled([Persistent(*saved)]))))


def tensor_of(size: Any, stride: Any, offset: Any = 0, numel: Any = 4, keys: Sequence[str] = ("0",)) -> bytes:
    """A file of one tensor with these figures over a storage of four numbers."""
    storage = Persistent("storage", torch.FloatStorage, "0", "cpu", numel, None)
    content = pickled({"x": Attack(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, OrderedDict())})
    return legacy(content, [*keys], struct.pack("<q4f", numel, 1, 2, 3, 4))


def test_figures_of_a_tensor_that_fit_are_read(tmp_path: Path) -> None:
    with opened(write(tmp_path / "x.pt", tensor_of((2, 1), (2, 1), 1))) as file:
        assert file.tensor(file.object["x"]).tolist() == [[2.0], [4.0]]


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (tensor_of((5,), (1,)), "a tensor of shape (5,) reaches beyond its storage of 4 numbers"),
        (tensor_of((4,), (1,), 1), "reaches beyond its storage"),
        (tensor_of((2,), (4,)), "reaches beyond its storage"),
        (tensor_of((2**40,), (0,)), "reaches beyond its storage"),  # one number, repeated until the memory is full
        (tensor_of((2**32, 2**32), (0, 0)), "reaches beyond its storage"),  # their product is 0 in 64 bits
        (tensor_of((4,), (1, 1)), "it is damaged"),
        (tensor_of((4,), (-1,), 3), "its pickle is broken"),
        (tensor_of((-1,), (1,)), "its pickle is broken"),
        (tensor_of([4], [1]), "its pickle is broken"),
        (tensor_of((4,), (1,), "0"), "its pickle is broken"),
        (tensor_of((2.0,), (1,)), "its pickle is broken"),
        (tensor_of((2**40,), (1,), numel=2**40), "is more than is left of the file's"),
        (tensor_of((2**47,), (1,), numel=2**47), "is more than is left of the file's"),
        (tensor_of((2**47,), (1,), numel=2**47, keys=("0", "0")), "it is damaged"),  # another storage behind, where files do not reach
    ],
)
def test_figures_of_a_tensor_that_do_not_fit_are_one_sentence(tmp_path: Path, file: bytes, says: str) -> None:
    assert says in refusal(write(tmp_path / "x.pt", file))


def test_storages_are_as_long_as_the_file_says_twice(tmp_path: Path) -> None:
    whole = tensor_of((4,), (1,))
    assert "has 5 in the file" in refusal(write(tmp_path / "x.pt", whole[:-24] + struct.pack("<q", 5) + whole[-16:]))
    assert "has -1 in the file" in refusal(write(tmp_path / "y.pt", whole[:-24] + struct.pack("<q", -1) + whole[-16:]))


def test_two_tensors_of_one_storage_are_refused(tmp_path: Path) -> None:
    """Else a small file could name one storage often enough to fill the memory with copies."""
    one = torch.zeros(3)
    for form in FORMS:
        assert "two tensors share a storage" in refusal(save({"x": one, "y": one}, tmp_path / f"{form}.pt", form))


@pytest.mark.parametrize("form", FORMS)
def test_a_file_cut_short_anywhere_is_one_sentence(tmp_path: Path, form: Form) -> None:
    whole = save_gmmc(tmp_path / "whole.pt", form, buffer=[]).read_bytes()
    cuts = {*range(0, 200, 7), *range(200, len(whole), len(whole) // 60), len(whole) - 1}
    for cut in sorted(cuts):
        with pytest.raises(CheckpointError) as raised, opened(write(tmp_path / "cut.pt", whole[:cut])) as file:
            for value in file.object["model_state_dict"].values():
                file.tensor(value)
            file.tensor(file.object["margin"].state["_parameters"]["centers"])
        assert raised.value.message.startswith("cut.pt cannot be imported: ")


@pytest.mark.parametrize("form", FORMS)
def test_a_byte_flipped_anywhere_is_read_or_one_sentence(tmp_path: Path, form: Form) -> None:
    whole = save({"x": torch.arange(3.0), "margin": {"centers": torch.zeros(2, 2)}}, tmp_path / "whole.pt", form).read_bytes()
    for place in range(0, len(whole), 5):
        flipped = bytearray(whole)
        flipped[place] ^= 0x41
        try:
            with opened(write(tmp_path / "flipped.pt", bytes(flipped))) as file:
                read_all(file, file.object)
        except CheckpointError as error:
            assert error.message.startswith("flipped.pt cannot be imported: ")
            assert len(error.message) < 300


def read_all(file: TorchFile, value: Any) -> None:
    """Read every tensor in dictionaries."""
    if isinstance(value, Strided):
        file.tensor(value)
    for inner in value.values() if isinstance(value, dict) else []:
        read_all(file, inner)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "neither a zip archive nor a pickle"),
        (b"\x89PNG", "neither a zip archive nor a pickle"),
        (b"PK\x03\x04", "it is damaged"),
        (pickle.dumps({"a": 1}, 2), "its pickle is broken"),
        (pickle.dumps({"a": 1}, 2) * 3, "not one of torch.save"),
        (pickle.dumps({"a": 1}, 4), "neither a zip archive nor a pickle"),
        (legacy(pickle.dumps([bytearray(3)], 2)), "it asks for '__builtin__.bytearray'"),
        (legacy(b"\x80\x02]q\x00h\x07."), "its pickle is broken"),
        (legacy(b"\x80\x02."), "its pickle is broken"),
        (legacy(b"\x80\x02t."), "its pickle is broken"),
        (legacy(b"\x80\x02\x87."), "its pickle is broken"),
        (legacy(b"\x80\x02N}b."), "its pickle is broken"),
        (legacy(b"\x80\x02}(N}u."), "its pickle is broken"),
        (legacy(b"\x80\x02})}s."), "its pickle is broken"),  # a tuple for a key
        (legacy(b"\x80\x02}K\x01a."), "its pickle is broken"),  # appended to a dictionary
        (legacy(b"\x80\x02cLDALayer\nLDALayer\n)R."), "its pickle is broken"),
        (legacy(b"\x80\x02ccollections\nOrderedDict\n)\x81."), "its pickle is broken"),
        (legacy(b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R."), "its pickle is broken"),
        (legacy(b"\x80\x02ca\x1b[31m\nb\n."), "it asks for 'a\\x1b[31m.b'"),
        (legacy(b"\x80\x02cos\n" + b"x" * 10_000 + b"\n."), "it asks for 'os.xxx"),
        (legacy(b"\x80\x02(cos\nsystem\nX\x01\x00\x00\x00xo."), "it asks for 'os.system'"),
        (legacy(b"\x80\x02(X\x01\x00\x00\x00xios\nsystem\n."), "the opcode INST, which torch.save does not write"),
        (legacy(b"\x80\x04\x8c\x02os\x8c\x06system\x93."), "the opcode SHORT_BINUNICODE"),
        (legacy(b"\x80\x02\x82\x01."), "the opcode EXT1"),
        (legacy(b"\x80\x02Pabc\n."), "the opcode PERSID"),
        (legacy(b"\x80\x02B\xff\xff\xff\xff."), "its pickle is broken"),  # four gigabytes that are not there
        (legacy(b"\x80\x02r\xff\xff\xff\xff."), "its pickle is broken"),
        (legacy(b"\x80\x02" + b"(" * 200_000 + b"."), "more than 200,000 operations"),
        (legacy(pickled([1]), storages=b"")[:-40], "its pickle is broken"),
        (legacy(b"\x80\x02}.", ["0"]), "it is damaged"),
        (legacy(b"\x80\x02}.", [["0"]]), "it is damaged"),
        (legacy(b"\x80\x02}.", 7), "it is damaged"),
        (legacy(b"\x80\x02}.").replace(b"\x88", b"\x89"), "another byte order"),
    ],
)
def test_other_files_are_one_sentence(tmp_path: Path, content: bytes, says: str) -> None:
    assert says in refusal(write(tmp_path / "x.pt", content))


def test_lists_within_lists_without_end_neither_recurse_nor_hang(tmp_path: Path) -> None:
    deep = b"\x80\x02" + b"]" * 90_000 + b"a" * 89_999 + b"."
    with opened(write(tmp_path / "deep.pt", legacy(deep))) as file:
        assert isinstance(file.object, list)
    laughs = b"\x80\x02]" + b"".join(b"q\x00h\x00h\x00\x86" for _ in range(100)) + b"q\x00}h\x00K\x01s."  # 2^100 leaves, hashed as a key
    assert "its pickle is broken" in refusal(write(tmp_path / "laughs.pt", legacy(laughs)))


def archive(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as written:
        for name, content in files.items():
            written.writestr(name, content)
    return path


ONE = pickled({"x": Attack(torch._utils._rebuild_tensor_v2, Persistent(*STORAGE[:5]), 0, (4,), (1,), False, OrderedDict())})


def test_archives_that_torch_would_not_write_are_one_sentence(tmp_path: Path) -> None:
    numbers = struct.pack("<4f", 1, 2, 3, 4)
    good = {"a/data.pkl": ONE, "a/data/0": numbers}
    with opened(archive(tmp_path / "good.pt", good)) as file:
        assert file.tensor(file.object["x"]).tolist() == [1.0, 2.0, 3.0, 4.0]
    bad: list[tuple[dict[str, bytes], str]] = [
        ({"a/b": b""}, "0 files FOLDER/data.pkl"),
        (good | {"b/data.pkl": ONE}, "2 files FOLDER/data.pkl"),
        ({"a/data.pkl": ONE}, "it is damaged"),
        (good | {"a/data/0": numbers[:8]}, "a storage of 4 numbers has 8 bytes"),
        (good | {"a/data/0": numbers * 2}, "a storage of 4 numbers has 32 bytes"),
        (good | {"a/byteorder": b"big"}, "another byte order"),
        ({"a/data.pkl": b"\x80\x02", "a/data/0": numbers}, "its pickle is broken"),
    ]
    for number, (files, says) in enumerate(bad):
        assert says in refusal(archive(tmp_path / f"{number}.pt", files))
    bomb = pickled([0] * 100_000)
    assert "it is compressed" in refusal(archive(tmp_path / "bomb.pt", {"a/data.pkl": bomb}, zipfile.ZIP_DEFLATED))


def test_a_number_changed_in_an_archive_is_noticed(tmp_path: Path) -> None:
    path = save({"x": torch.full((50,), 7.0)}, tmp_path / "x.pt", "zip")
    content = path.read_bytes()
    place = content.index(struct.pack("<50f", *[7.0] * 50))
    assert "it is damaged" in refusal(write(path, content[:place] + b"\x01" + content[place + 1 :]))


def test_what_is_no_file_is_one_sentence(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "missing.pt", tmp_path, tmp_path / "pipe"):
        with pytest.raises(CheckpointError, match="there is no file"), opened(path):
            pass
