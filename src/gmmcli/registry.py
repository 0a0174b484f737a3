"""What there is of a family of parts: those of this package, and those that other installed packages add (docs/extending.md)."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from gmmcli.errors import RecipeError, quoted
from gmmcli.hints import listed, nearest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints

Part = TypeVar("Part")


@cache
def installed(group: str) -> "EntryPoints":
    """The entry points of a group in all installed packages, read once."""
    from importlib.metadata import entry_points  # a tenth of a second that `gmmc --help` can do without

    return entry_points(group=group)


class PartError(RecipeError):
    """A part that no installed package adds, or adds in a form that cannot be used."""

    def __init__(self, message: str, hint: str, absent_from: str = "") -> None:
        super().__init__(message, hint)
        self.absent_from = absent_from
        """The group of entry points in which there is none of this name, where that is what is wrong."""


class Registry(Mapping[str, Part], Generic[Part]):
    """The parts of one family by name, in the order in which they are listed.

    A package adds a part by an entry point in the group ``gmmcli.FAMILY``, whose name is the part's. It is imported when it is first asked
    for, so that listing names imports nothing. No recipe or run names a module to import: only what was installed can run.

    Args:
        family: its name.
        builtin: the parts of this package.
        kind: the class or protocol that an added part must be an object of; None where whoever uses the registry checks.
    """

    def __init__(self, family: str, builtin: Mapping[str, Part], kind: Any = None) -> None:
        self.family = family
        self.group = f"gmmcli.{family}"
        self.kind = kind
        self.builtin = dict(builtin)
        self._loaded: dict[str, Part] = {}

    def __iter__(self) -> Iterator[str]:
        yield from dict.fromkeys([*self.builtin, *(point.name for point in installed(self.group))])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return any(name == known for known in self)

    def __getitem__(self, name: str) -> Part:
        """The part of this name.

        Raises:
            KeyError: there is none.
            PartError: the package that adds it cannot be imported, or adds what is no such part.
        """
        if name in self.builtin:
            return self.builtin[name]
        if name not in self._loaded:
            point, added = self._point(name), f"package {self.package(name)} adds {name!r} to gmmcli's {self.family}"
            try:
                part = point.load()
            except Exception as error:  # whatever another package's module raises
                raise PartError(f"{added}, and cannot be imported: {error}", "reinstall the package, or remove it") from error
            if self.kind and (isinstance(part, type) or not isinstance(part, self.kind)):  # a class has what its objects have
                raise PartError(f"{added}, which is no {self.kind.__name__}", "fix the package, or remove it")
            self._loaded[name] = part
        return self._loaded[name]

    def package(self, name: str) -> str:
        """The installed package that adds the part of this name."""
        point = self._point(name)
        return point.dist.name if point.dist else point.value

    def _point(self, name: str) -> "EntryPoint":
        found = installed(self.group).select(name=name)
        if not found:
            raise KeyError(name)
        (point, *_) = found
        return point

    def find(self, name: str, one: str) -> Part:
        """The part of this name; RecipeError, which calls it ``one`` of the family and says what there is, where there is none."""
        if name in self:
            return self[name]
        near = nearest(name, self)
        raise RecipeError(f"no {one} {quoted(name)}", f"did you mean {near}?" if near else f"give one of {listed(self)}")
