"""A pretend accelerator: its tensors compute on the CPU, say that they are elsewhere, and refuse to mix with the CPU's.

A GPU refuses most of what is wrong with a device, but where there is none nothing does, and some of it every GPU lets pass: an index
that lies on the CPU is copied over at every call, and a ``.item()`` makes the host wait. Here all of it is an error or is recorded.

The device calls itself ``lazy:0``: a kind that torch knows, that it never initialises, and whose gradients it computes in the calling
thread. Two things are not as on a GPU: autocast does nothing to its tensors, and what runs is the CPU's kernel of each operator.
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self
from unittest.mock import patch

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from gmmcli.core.compute import Compute

DEVICE = torch.device("lazy", 0)
aten = torch.ops.aten


class PretendTensor(torch.Tensor):
    """A tensor of the pretend device around one of the CPU, ``held``."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> Self:
        made = torch.Tensor._make_wrapper_subclass(cls, held.shape, strides=held.stride(), dtype=held.dtype, device=DEVICE)
        made.held = held
        return made

    def __repr__(self) -> str:
        return f"PretendTensor({self.held})"

    def untyped_storage(self) -> Any:  # its own has no address
        return self.held.untyped_storage()

    def tolist(self) -> Any:  # torch's own reads the memory of the device
        return self.cpu().tolist()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **(kwargs or {}))
        if func == torch.Tensor.data.__set__:  # torch swaps the outer tensor alone
            args[0].held = args[1].held
        return result

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} on a tensor of the pretend device, outside of it")


class PretendGenerator(torch.Generator):
    """A generator that says it is of the device that it was asked for; it draws what the CPU's draws."""

    def __new__(cls, device: torch.device | str = "cpu") -> Self:
        made = super().__new__(cls)
        made.where = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:
        return self.where


class Accelerator(TorchDispatchMode):
    """Runs every operator on the tensors held, and watches what the host asks of the device.

    Attributes:
        waits: where the host waited for the device, ``operator, file:line`` each: a value or a copy fetched from it, a copy brought to it
            that does not run on its own (``non_blocking``), a result whose size depends on values.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        there = {id(tensor.held): tensor for tensor in tensors if isinstance(tensor, PretendTensor)}
        asked = kwargs.get("device")
        to_device = bool(there) if asked is None else asked.type == DEVICE.type
        if to_device and asked is not None:
            kwargs["device"] = torch.device("cpu")
        if func in (aten._to_copy.default, aten.copy_.default):
            source, target = (args[0], to_device) if func is aten._to_copy.default else (args[1], isinstance(args[0], PretendTensor))
            in_background = target and (kwargs.get("non_blocking") or True in args[2:])
            if isinstance(source, PretendTensor) != target and not in_background:
                self._waits(func)
            to_device = target
        elif there and not all(isinstance(tensor, PretendTensor) for tensor in tensors):
            raise RuntimeError(f"{func}: expected all tensors to be on the same device, but found some on {DEVICE} and some on the cpu")
        elif there and _needs_values(func, args):
            self._waits(func)
        args, kwargs = tree_map_only(PretendTensor, lambda tensor: tensor.held, (args, kwargs))
        result = func(*args, **kwargs)
        if not to_device:
            return result
        # an operator that writes into its argument returns that argument
        return tree_map_only(torch.Tensor, lambda tensor: there[id(tensor)] if id(tensor) in there else PretendTensor(tensor), result)

    def _waits(self, func: Any) -> None:
        ours = [frame for frame in traceback.extract_stack() if "/torch/" not in frame.filename and frame.filename != __file__]
        self.waits.append(f"{func}, {ours[-1].filename}:{ours[-1].lineno}")


def _needs_values(func: Any, args: Any) -> bool:
    """Whether the host must know values on the device before it can go on."""
    if func in (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default):
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    return bool({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags))


class _Draws(TorchFunctionMode):
    """Holds every draw to a generator of its own device, as a GPU does."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if (generator := kwargs.get("generator")) is not None:
            first = args[0] if args and isinstance(args[0], torch.Tensor) else None
            device = kwargs.get("device") or (first.device if first is not None else "cpu")
            if torch.device(device).type != generator.device.type:
                raise RuntimeError(f"{func}: expected a {torch.device(device).type!r} generator, but found {generator.device.type!r}")
        return func(*args, **kwargs)


def _autocast(device_type: str, *args: Any, **kwargs: Any) -> Any:
    return _AUTOCAST("cpu" if device_type == DEVICE.type else device_type, *args, **kwargs)


_AUTOCAST = torch.autocast


@contextmanager
def accelerator() -> Iterator[Accelerator]:
    """Make the device exist within this block, and every recipe choose it."""
    lifting = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=DEVICE) then brings its values over in an operator of its own
    fused = [*torch.utils._foreach_utils._get_fused_kernels_supported_devices(), DEVICE.type]
    with (
        patch("torch.Generator", PretendGenerator),
        patch("torch.autocast", _autocast),
        patch("torch.optim.optimizer._get_fused_kernels_supported_devices", lambda: fused),
        patch.object(Compute, "select", lambda self: DEVICE),
        _Draws(),
        Accelerator() as watched,
    ):
        try:
            yield watched
        finally:
            torch._C._set_only_lift_cpu_tensors(lifting)


class DrawnOnTheCPU(TorchFunctionMode):
    """Draws by generators of a device come from the CPU's, so that a GPU computes with the numbers that the CPU computes with."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        generator = kwargs.get("generator")
        if not isinstance(generator, PretendGenerator) or "device" not in kwargs:
            return func(*args, **kwargs)
        return func(*args, **kwargs | {"device": "cpu"}).to(generator.device)


@contextmanager
def same_draws(device: torch.device) -> Iterator[None]:
    """Let every recipe choose a real device within this block, in full float32, with the draws of the CPU."""
    with patch("torch.Generator", PretendGenerator), patch.object(Compute, "select", lambda self: device), DrawnOnTheCPU():
        yield
