import dataclasses
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from gmmcli.core import heads, model, objectives, optim, protocols, samplers, starts, targets
from gmmcli.data import sources
from gmmcli.registry import Registry
from gmmcli.schema import asked_for

REGISTRIES: list[tuple[Any, Registry[Any]]] = [
    (protocols.Backbone, model.BACKBONES),
    (protocols.Head, heads.HEADS),
    (protocols.Target, targets.TARGETS),
    (protocols.Sampler, samplers.SAMPLERS),
    (protocols.Start, starts.STARTS),
    (protocols.Objective, objectives.OBJECTIVES),
    (protocols.Optim, optim.OPTIMISERS),
    (sources.Source, sources.SOURCES),
]
KINDS: list[tuple[Any, Iterable[type]]] = [
    *((protocol, registry.builtin.values()) for protocol, registry in REGISTRIES),
    (protocols.Starts, (starts.UniformStarts, starts.GaussianStarts)),
]
EVERY = [pytest.param(protocol, kind, id=kind.__name__) for protocol, kinds in KINDS for kind in kinds]


def offered(protocol: Any, kind: type) -> bool:
    """Whether a kind has every member of the protocol, methods with the same parameters in the same order."""
    for name in asked_for(protocol):
        asked, mine = inspect.getattr_static(protocol, name), inspect.getattr_static(kind, name, None)
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


@pytest.mark.parametrize("registry", [registry for _, registry in REGISTRIES], ids=lambda registry: registry.family)
def test_a_kind_is_registered_by_its_own_name(registry: Registry[Any]) -> None:
    assert {name: {field.name: field.default for field in dataclasses.fields(part)}["kind"] for name, part in registry.builtin.items()} == {
        name: name for name in registry.builtin
    }


def test_what_is_asked_for_is_what_a_protocol_and_its_bases_write_down() -> None:
    assert asked_for(protocols.Backbone) == ["dim", "build", "kind"]
    assert asked_for(protocols.Target) == ["needs_means", "uses_labels", "__call__", "kind"]
    assert asked_for(protocols.Starts) == ["shape", "__call__", "tensors"]


@dataclass(frozen=True)
class Forgetful:
    """A target without uses_labels."""

    needs_means: ClassVar[bool] = False
    kind: str = "mine"

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
