import inspect
import typing
from dataclasses import dataclass
from types import FunctionType
from typing import Any, ClassVar

import pytest

from gmmcli.core import heads, objectives, protocols, samplers, starts, targets
from gmmcli.core.wide_resnet import WideResNet

KINDS: list[tuple[Any, tuple[type, ...]]] = [
    (protocols.Backbone, (WideResNet,)),
    (protocols.Head, typing.get_args(heads.Head)),
    (protocols.Target, typing.get_args(targets.Target)),
    (protocols.Sampler, typing.get_args(samplers.Sampler)),
    (protocols.Start, typing.get_args(starts.Start)),
    (protocols.Starts, (starts.UniformStarts, starts.GaussianStarts)),
    (protocols.Objective, typing.get_args(objectives.Objective)),
]
EVERY = [pytest.param(protocol, kind, id=kind.__name__) for protocol, kinds in KINDS for kind in kinds]


def offered(protocol: Any, kind: type) -> bool:
    """Whether a kind has every member of the protocol, methods with the same parameters in the same order."""
    for name, asked in vars(protocol).items():
        if asked.__class__ not in (FunctionType, property) or name in ("__init__", "__subclasshook__"):  # these are typing's
            continue
        mine = inspect.getattr_static(kind, name, None)
        if mine is None and name not in getattr(kind, "__dataclass_fields__", {}):
            return False
        if inspect.isfunction(asked) and (
            not inspect.isfunction(mine) or list(inspect.signature(mine).parameters) != list(inspect.signature(asked).parameters)
        ):
            return False
    return True


@pytest.mark.parametrize(("protocol", "kind"), EVERY)
def test_every_kind_offers_what_those_who_call_it_ask_for(protocol: Any, kind: type) -> None:
    assert offered(protocol, kind)


@dataclass(frozen=True)
class Forgetful:
    """A target without uses_labels."""

    needs_means: ClassVar[bool] = False

    def __call__(self, model: Any, labels: Any, generator: Any) -> Any:
        """Nothing."""


@dataclass(frozen=True)
class Swapped(Forgetful):
    """A target whose parameters stand in another order."""

    uses_labels: ClassVar[bool] = True

    def __call__(self, labels: Any, model: Any, generator: Any) -> Any:
        """Nothing."""


@pytest.mark.parametrize("kind", [Forgetful, Swapped])
def test_a_kind_that_lacks_something_is_noticed(kind: type) -> None:
    assert not offered(protocols.Target, kind)
