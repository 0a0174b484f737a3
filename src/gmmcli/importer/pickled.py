"""A pickle read as data: a loop over the few opcodes that ``torch.save`` writes, which imports and calls nothing that a file names.

What a file may name is listed here: storages, which become a dtype; the functions that put tensors and dictionaries together, for which
there are harmless ones of ours; and the layers of the authors' code, which become records of their attributes (docs/decisions/0007).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pickletools import genops
from typing import Any, BinaryIO, NamedTuple

import torch

from gmmcli.errors import CheckpointError

MAX_OPERATIONS = 200_000
"""In one pickle: a WRN-28-10 with batch norm takes 6,239."""
DTYPES = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
LAYERS = ("LDALayer.LDALayer", "Loss.LDALoss.LDALoss")
"""Classes of the authors' code whose objects become records."""


class Name(str):
    """A class or function that a pickle names, and that is known here."""


@dataclass
class Record:
    """A layer of the authors' code: its attributes alone."""

    state: dict[Any, Any] = field(default_factory=dict)


class Storage(NamedTuple):
    """Numbers that lie elsewhere in the file."""

    dtype: torch.dtype
    key: str
    numel: int


class Strided(NamedTuple):
    """A tensor over a storage, not yet read."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read_pickle(stream: BinaryIO) -> tuple[Any, dict[str, Storage]]:
    """Read one pickle, up to its end.

    Args:
        stream: at the first byte of the pickle; afterwards at the byte behind it.

    Returns:
        Plain data with ``Strided`` for tensors and ``Record`` for layers, and the storages that the tensors lie in, by their keys.

    Raises:
        CheckpointError: it names something unknown, or is nothing that ``torch.save`` writes; the message lacks the file's name.
    """
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(genops(stream)):
            if count == MAX_OPERATIONS:
                raise CheckpointError(f"its pickle has more than {MAX_OPERATIONS:,} operations, and a checkpoint has fewer")
            machine.run(opcode.name, argument)
        return machine.stack.pop(), machine.storages
    except (ValueError, OverflowError, IndexError, KeyError, TypeError, MemoryError) as error:  # of pickletools, or of a broken stack
        raise CheckpointError(f"its pickle is broken ({str(error)[:100]})") from error


class _Machine:
    """The stack and the memo of a pickle, and the storages that it has named."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def run(self, opcode: str, argument: Any) -> None:
        """Execute one opcode, of those that torch.save writes."""
        match opcode:
            case "PROTO" | "STOP":
                pass
            case "GLOBAL":
                self.stack.append(_known(argument.replace(" ", ".", 1)))
            case "BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                self.stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE" | "EMPTY_TUPLE":
                self.stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}[opcode])
            case "EMPTY_DICT" | "EMPTY_LIST":
                self.stack.append({} if opcode == "EMPTY_DICT" else [])
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "BINGET" | "LONG_BINGET":
                self.stack.append(self.memo[argument])
            case "MARK":
                self.marks.append(len(self.stack))
            case "TUPLE":
                self.stack.append(tuple(self._pop(self.marks.pop())))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self.stack.append(tuple(self._pop(len(self.stack) - int(opcode[-1]))))
            case "APPEND" | "APPENDS":
                items = self._pop(len(self.stack) - 1 if opcode == "APPEND" else self.marks.pop())
                _of(list, self.stack[-1]).extend(items)
            case "SETITEM" | "SETITEMS":
                items = self._pop(len(self.stack) - 2 if opcode == "SETITEM" else self.marks.pop())
                _of(dict, self.stack[-1]).update(zip(map(_key, items[::2]), items[1::2], strict=True))
            case "BINPERSID":
                self.stack.append(found := _persistent(self.stack.pop()))
                if isinstance(found, Storage) and self.storages.setdefault(found.key, found) != found:
                    raise TypeError("one storage of two kinds")
            case "REDUCE":
                name, arguments = self._pop(len(self.stack) - 2)
                self.stack.append(CALLS[_of(Name, name)](*_of(tuple, arguments)))
            case "NEWOBJ":
                name, _ = self._pop(len(self.stack) - 2)
                if _of(Name, name) not in LAYERS:
                    raise TypeError(f"{name} is no layer")
                self.stack.append(Record())
            case "BUILD":
                state = self.stack.pop()
                if isinstance(self.stack[-1], Record):
                    self.stack[-1].state = _of(dict, state)
                else:
                    _of(dict, self.stack[-1])  # of a state dict's attributes, `_metadata`, nothing is needed
            case _:
                raise CheckpointError(f"its pickle has the opcode {opcode}, which torch.save does not write")

    def _pop(self, start: int) -> list[Any]:
        """Take everything from a height of the stack on."""
        if not 0 <= start <= len(self.stack):
            raise IndexError("below the stack")
        items = self.stack[start:]
        del self.stack[start:]
        return items


def _known(name: str) -> Name:
    if name not in DTYPES and name not in LAYERS and name not in CALLS:
        raise CheckpointError(f"it asks for {name[:100]!r}, which no checkpoint of GMMC or JEM needs; nothing of the file was run")
    return Name(name)


def _persistent(saved: Any) -> Storage | Name:
    """A storage; or in the format of torch 1.5 a class, beside whose name the file has its source code, which is not looked at."""
    kind, known, *others = _of(tuple, saved)
    if kind == "module" and _of(Name, known) in LAYERS:
        return known  # type: ignore[no-any-return]  # a Name by now
    if kind != "storage":
        raise TypeError("neither a storage nor a layer")
    key, _, numel, *view = others
    if any(part is not None for part in view):
        raise TypeError("a view of a storage")
    return Storage(DTYPES[_of(Name, known)], _of(str, key), _natural(numel))


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Strided:
    """What ``torch._utils._rebuild_tensor_v2`` is given."""
    return Strided(_of(Storage, storage), _natural(offset), *(tuple(map(_natural, _of(tuple, numbers))) for numbers in (size, stride)))


def _parameter(tensor: Any, *_: Any) -> Any:
    """What ``torch._utils._rebuild_parameter`` is given."""
    return _of(Strided, tensor)


CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "collections.OrderedDict": lambda: {},
    "__builtin__.set": lambda items: _of(list, items),
}
"""What stands in for the functions that torch.save has called."""


def _of(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{type(value).__name__} in place of {kind.__name__}")
    return value


def _key(key: Any) -> str | int:
    """A key of a dictionary: hashing a tuple of tuples of tuples can take for ever."""
    if type(key) not in (str, int):
        raise TypeError(f"a key of type {type(key).__name__}")
    return key  # type: ignore[no-any-return]  # one of the two


def _natural(number: Any) -> int:
    if type(number) is not int or not 0 <= number < 2**48:
        raise TypeError("a number that counts nothing in a file")
    return number
