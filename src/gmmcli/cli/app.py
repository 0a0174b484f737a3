"""The ``gmmc`` command: its verbs, and the one boundary where errors become sentences and exit codes."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer

from gmmcli.cli import (
    attack,
    classify,
    data,
    env,
    evaluate,
    export,
    import_,
    recipes,
    report,
    restore,
    runs,
    sample,
    study,
    train,
    tsne,
    watch,
)
from gmmcli.cli.options import note
from gmmcli.cli.overview import overview
from gmmcli.cli.verbs import Group, Verbs
from gmmcli.errors import DivergedError, GmmcError, StoppedError, StorageError
from gmmcli.run_folder import default_runs_dir

OS_HINTS = {
    errno.ENOSPC: "the disk is full: free some space, or choose another with --runs-dir; a training resumes with --resume",
    errno.EDQUOT: "your quota is used up: free some space, or choose another disk with --runs-dir",
    errno.EACCES: "you may not write there: choose another place with --runs-dir or --out",
    errno.EROFS: "that disk is read-only: choose another place with --runs-dir or --out",
    errno.ENOTDIR: "a part of this path is a file, not a folder",
    errno.EMFILE: "too many open files: raise the limit (ulimit -n)",
}
"""What to do, by the number of an error of the operating system."""


LOWER = "lower data.batch_size, model.backbone.width or chains.buffer_size of a training (--dry-run tells its memory), or --n"


class Boundary(Group):
    """Every GmmcError ends here: message and hint on stderr, its own exit code. Anything else is a bug and shows itself."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for, in every process that torchrun started; only rank 0 answers."""
        try:
            with _among_processes():
                return super().invoke(ctx)
        except GmmcError as error:
            if _is_main() or not isinstance(error, (StoppedError, DivergedError)):  # these two end all processes at the same step
                kind = "stopped" if isinstance(error, StoppedError) else "error"
                note(f"{kind}: {error.message}")
                if error.hint:
                    note(error.hint)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            note("stopped")
            raise typer.Exit(StoppedError.exit_code) from None
        except BrokenPipeError:  # `gmmc recipes ls | head`: nobody reads on
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            note(f"error: out of memory: {str(error).splitlines()[0] if str(error) else 'no more to be had'}")
            note(LOWER)
            raise typer.Exit(GmmcError.exit_code) from None
        except OSError as error:
            if error.strerror is None:  # not of the operating system
                raise
            named = GmmcError(f"{error.filename or 'the output'}: {error.strerror}")
            note(f"error: {named.message}")
            note(OS_HINTS.get(error.errno or 0, "check the path, its permissions and the disk"))
            raise typer.Exit(StorageError.exit_code) from None


def _is_out_of_memory(error: Exception) -> bool:
    """Whether it is that of Python, of torch on a GPU, or of torch on a CPU, whose RuntimeError has no class of its own."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"  # torchrun sets it


@contextmanager
def _among_processes() -> Iterator[None]:
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:  # torchrun sets it; the check spares all others the import of torch
        yield
        return
    from gmmcli.distributed import joined

    with joined() as here, ExitStack() as muted:
        if not here.is_main:  # errors are printed after the block, by every process that has one
            nowhere = muted.enter_context(Path(os.devnull).open("w"))
            muted.enter_context(redirect_stdout(nowhere))
            muted.enter_context(redirect_stderr(nowhere))
        yield


app = Verbs(
    name="gmmc",
    cls=Boundary,
    help="Generative Max-Mahalanobis Classifiers: one network that classifies, generates and knows what it does not know.",
    epilog="Start with:\n\ngmmc train digits_gen\n\ngmmc sample --class 3 --n 64",
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train", epilog=train.EPILOG)(train.train_command)
app.command("watch", epilog=watch.EPILOG)(watch.watch_command)
app.command("classify", epilog=classify.EPILOG)(classify.classify_command)
app.command("sample", epilog=sample.EPILOG)(sample.sample_command)
app.add_typer(evaluate.app, name="eval")
app.add_typer(attack.app, name="attack")
app.command("restore", epilog=restore.RESTORE)(restore.restore_command)
app.command("morph", epilog=restore.MORPH)(restore.morph_command)
app.command("tsne", epilog=tsne.EPILOG)(tsne.tsne_command)
app.command("study", epilog=study.EPILOG)(study.study_command)
app.command("report", epilog=report.EPILOG)(report.report_command)
app.add_typer(recipes.app, name="recipes")
app.add_typer(runs.app, name="runs")
app.add_typer(data.app, name="data")
app.command("import", epilog=import_.EPILOG)(import_.import_command)
app.command("export", epilog=export.EPILOG)(export.export_command)
app.command("env", epilog=env.EPILOG)(env.env_command)


def _version(wanted: bool) -> None:
    if wanted:
        from gmmcli import __version__

        print(f"gmmc {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and stop.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Download nothing, as GMMC_OFFLINE=1 does.")] = False,
) -> None:
    """Options before the verb; without a verb, where the user is, and the help."""
    if offline:
        os.environ["GMMC_OFFLINE"] = "1"  # a study's child processes inherit it
    if context.invoked_subcommand is None:
        print("\n".join([*overview(default_runs_dir()), "", context.get_help()]))


def _open_closed_streams() -> None:
    """Open streams that the caller has closed on nothing: else print would take stdout for stderr, and the next file its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            nothing = os.open(os.devnull, os.O_RDWR)  # it gets the lowest free number, which is the stream's
            setattr(sys, name, os.fdopen(nothing, mode, encoding="utf-8"))


def main() -> None:
    """The console entry. What the output's encoding lacks is written as an escape."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app()
