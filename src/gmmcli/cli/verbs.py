"""How commands show their help and tell wrong usage: plain text that flows at any width, with examples that can be pasted."""

import shutil
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from gmmcli.hints import plainly

Function = TypeVar("Function", bound=Callable[..., Any])
WIDEST = 100
"""Columns of help, of a terminal that has more."""


class Plain:
    """Help without boxes: what stands in ``help`` flows, what stands in ``epilog`` stays as it is, a line for each paragraph."""

    epilog: str | None

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Parse the words after the command; a value of the wrong type is told in our words, not pydantic's."""
        extra.setdefault("terminal_width", min(shutil.get_terminal_size().columns, WIDEST))
        try:
            return super().make_context(info_name, args, parent, **extra)  # type: ignore[misc]  # mixed into typer's commands
        except typer.BadParameter as error:
            error.message = plainly(error.message)
            raise

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help; options and commands take at most a third of the width, and what they do the rest."""
        formatter.write_dl = partial(formatter.write_dl, col_max=min(30, formatter.width // 3))
        super().format_help(ctx, formatter)  # type: ignore[misc]

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples: a heading, and a line each."""
        if self.epilog:
            heading, *lines = self.epilog.split("\n\n")
            with formatter.section(heading.removesuffix(":")):
                formatter.write("".join(f"  {line}\n" for line in lines))


class Verb(Plain, TyperCommand):
    """A command."""


class Group(Plain, TyperGroup):
    """A group of commands."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write what each command does, to the end of its first paragraph."""
        commands: list[tuple[str, Any]] = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help.partition("\n\n")[0].replace("\n", " ")) for name, command in commands])


class Verbs(typer.Typer):
    """A typer application, or part of one, of such commands."""

    def __init__(self, *, cls: type[Group] = Group, **settings: Any) -> None:
        super().__init__(**{"cls": cls, "rich_markup_mode": None, "no_args_is_help": True, "pretty_exceptions_enable": False} | settings)

    def command(self, name: str, **settings: Any) -> Callable[[Function], Function]:  # type: ignore[override]  # with fewer ways
        """Register a function as a command."""
        return super().command(name, cls=Verb, **settings)
