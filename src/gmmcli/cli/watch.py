"""``gmmc watch``."""

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gmmcli.cli import completion
from gmmcli.cli.options import Json, RunsDir, answer
from gmmcli.layout import fitted

if TYPE_CHECKING:
    from rich.console import Console

    from gmmcli.watch.watched import Watched

EPILOG = "Examples:\n\ngmmc watch\n\ngmmc watch --run digits_gen --json\n\nssh HOST gmmc watch --run PATH"
INTERVAL = 1.0
"""Seconds from one look at the run to the next."""


def watch_command(
    run: Annotated[
        str | None,
        typer.Option(
            "--run",
            help="Run by path, id, unique prefix or recipe. Default: $GMMC_RUN, else the newest that is being trained, else the newest.",
            show_default=False,
            autocompletion=completion.runs,
        ),
    ] = None,
    runs_dir: RunsDir = None,
    json: Json = False,
) -> None:
    """Watch a training: progress and time left, curves, events and the newest preview; q quits.

    Only reads the run directory. Ends by itself when the training ends.

    Where output is no terminal it prints a line whenever something new is logged.
    """
    from gmmcli.progress import live_console
    from gmmcli.watch.watched import Watched

    watched = Watched(_meant(run, runs_dir))
    if json:
        watched.refresh()
        answer({"schema": 1, "command": "watch", "run": watched.path.name, "values": watched.document()})
        return
    console = live_console()
    try:
        if console.is_terminal and not console.is_dumb_terminal and console.encoding.startswith("utf"):
            _draw(watched, console)
        else:
            _tell(watched)
    except KeyboardInterrupt:  # it is how one quits, and nothing is lost
        return


def _meant(name: str | None, runs_dir: Path | None) -> Path:
    """The run that is named, or else the newest that is being trained, or else the newest."""
    from gmmcli.run_folder import RunFolder, default_runs_dir, find_run, run_paths

    if name is None and "GMMC_RUN" not in os.environ:
        trained = [path for path in run_paths(runs_dir or default_runs_dir()) if RunFolder(path).is_locked]
        if trained:
            return trained[-1]
    return find_run(name, runs_dir)


def _draw(watched: "Watched", console: "Console") -> None:
    """Draw the run whenever there is something new, until it ends or q is pressed; then leave the last picture of it."""
    from rich.console import Group
    from rich.live import Live

    from gmmcli.watch.keys import keys, pressed
    from gmmcli.watch.screen import screen

    def drawn(keys: bool) -> Group:
        return Group(*screen(watched, *console.size, coloured=console.color_system is not None, keys=keys))

    before = None
    with keys() as listening, Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            watched.refresh()
            now = (watched.document(), console.size)
            if now != before:
                live.update(drawn(listening), refresh=True)
                before = now
            if watched.ended:
                break
            if listening and pressed("qQ", INTERVAL):
                break
            if not listening:
                time.sleep(INTERVAL)
    console.print(drawn(False))


def _tell(watched: "Watched") -> None:
    """Print a line for each that is logged, until the run ends; of what was there before, the last ones."""
    from gmmcli.watch.words import progress, sentence

    lines = watched.refresh()
    lines = [line for line in lines if line is watched.last or line is watched.validated or "event" in line][-10:]
    while True:
        for line in lines:
            if said := sentence(line, watched):
                print(fitted(said, sys.stdout), flush=True)
        if watched.ended:
            break
        time.sleep(INTERVAL)
        lines = watched.refresh()
    print(fitted(f"{watched.status}: {progress(watched)}", sys.stdout))
