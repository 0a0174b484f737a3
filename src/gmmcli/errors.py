"""What can go wrong in a user's hands: one family, one exit code each (docs/cli.md)."""

from signal import SIGINT

LONGEST, LONGEST_QUOTED = 1000, 100
"""Characters of a message or a hint, and of a value that one quotes."""


def shortened(text: str, longest: int) -> str:
    """Return a text without its middle where it is longer than this."""
    end = longest // 3
    return text if len(text) <= longest else f"{text[: longest - end - 5]} ... {text[-end:]}"


def visible(text: str) -> str:
    """Return a text with what a terminal would obey, or not show, as escapes: control characters, bidirectional overrides, surrogates."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(value: object) -> str:
    """Return a value as errors quote it: as Python writes it, shortened."""
    return shortened(repr(value), LONGEST_QUOTED)


class GmmcError(Exception):
    """A failure the user can mend: one sentence that names what and where, and a hint what to do.

    Neither is longer than ``LONGEST``, and both are one line, whatever names they quote.
    """

    exit_code: int = 1

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = shortened(visible(message), LONGEST)
        self.hint = shortened(visible(hint), LONGEST)
        super().__init__(self.message)


class RecipeError(GmmcError):
    """A recipe, an override or an option that is invalid."""

    exit_code = 2


class DataError(GmmcError):
    """A dataset that is missing or broken."""

    exit_code = 3


class RunError(GmmcError):
    """A run that cannot be found, opened or used as asked."""


class MissingPartError(GmmcError):
    """An optional part that is not there: Inception weights, say."""

    exit_code = 4


class DivergedError(GmmcError):
    """Training ran away: a loss or a gradient left the finite, sane range."""

    exit_code = 5


class CheckpointError(GmmcError):
    """A checkpoint whose files are missing or differ from their manifest."""

    exit_code = 6


class StorageError(GmmcError):
    """A file or folder that cannot be written or read: a full disk, no permission, a name that is taken."""

    exit_code = 7


class StoppedError(GmmcError):
    """The user asked to stop; everything is saved. The exit code is 128 and the number of the signal, as a shell has it: 130 for Ctrl-C."""

    exit_code = 130

    def __init__(self, message: str, hint: str = "", signal: int = SIGINT) -> None:
        super().__init__(message, hint)
        self.exit_code = 128 + signal
