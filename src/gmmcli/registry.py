"""What there is of a family of parts: this package's own, and those that other installed packages add (docs/extending.md)."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoints, entry_points
from typing import Generic, TypeVar

from gmmcli.errors import RecipeError

Part = TypeVar("Part")


@cache
def installed(group: str) -> EntryPoints:
    """The entry points of a group in all installed packages, read once."""
    return entry_points(group=group)


class Registry(Mapping[str, Part], Generic[Part]):
    """The parts of one family by name, in the order in which they are listed.

    A package adds a part by an entry point in the group ``gmmcli.FAMILY``, whose name is the part's. It is imported when it is first asked
    for, so that listing names imports nothing. No recipe or run names a module to import: only what was installed can run.
    """

    def __init__(self, family: str, own: Mapping[str, Part]) -> None:
        self.family = family
        self.group = f"gmmcli.{family}"
        self._own = dict(own)
        self._loaded: dict[str, Part] = {}

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        yield from (point.name for point in installed(self.group) if point.name not in self._own)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return any(name == known for known in self)

    def __getitem__(self, name: str) -> Part:
        """The part of this name.

        Raises:
            KeyError: there is none.
            RecipeError: the package that adds it cannot be imported.
        """
        if name in self._own:
            return self._own[name]
        if name not in self._loaded:
            found = installed(self.group).select(name=name)
            if not found:
                raise KeyError(name)
            (point, *_) = found
            try:
                self._loaded[name] = point.load()
            except (ImportError, AttributeError) as error:
                package = point.dist.name if point.dist else point.value
                raise RecipeError(
                    f"package {package} adds {name!r} to gmmcli's {self.family}, and cannot be imported: {error}",
                    f"reinstall {package}, or remove it",
                ) from error
        return self._loaded[name]

    def find(self, name: str, one: str) -> Part:
        """The part of this name; RecipeError, which calls it ``one`` of the family and says what there is, where there is none."""
        if name in self:
            return self[name]
        near = get_close_matches(name, self, n=1)
        raise RecipeError(f"no {one} {name!r}", f"did you mean {near[0]}?" if near else f"give one of {', '.join(self)}")
