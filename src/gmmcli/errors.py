"""What can go wrong in a user's hands: one family, one exit code each (docs/cli.md)."""

from signal import SIGINT


class GmmcError(Exception):
    """A failure the user can mend: one sentence that names what and where, and a hint what to do."""

    exit_code: int = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


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
