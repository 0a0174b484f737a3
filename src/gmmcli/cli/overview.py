"""What ``gmmc`` alone tells: the newest runs, the newest result, and what to type next."""

import os
from collections.abc import Iterator
from pathlib import Path

from gmmcli.cli.listing import Row, lines, rows, terminal_width
from gmmcli.errors import visible
from gmmcli.run_folder import every_run_path

NEWEST = 5
"""Runs that are shown; only these are read."""
UNFINISHED = ("created", "interrupted", "killed", "failed")


def overview(runs_dir: Path) -> Iterator[str]:
    """Say where the user is, a line each; torch is not imported, and of a thousand runs all but the newest are only counted."""
    from gmmcli import __version__

    yield f"gmmc {__version__}"
    paths = every_run_path(runs_dir)
    newest = rows(paths[-NEWEST:], runs_dir)
    if not newest:
        yield f"no runs in {visible(str(runs_dir))} yet"
    else:
        yield f"{len(paths):,} run{'s' * (len(paths) > 1)} in {visible(str(runs_dir))}{', the newest' * (len(paths) > NEWEST)}:"
        width = terminal_width()
        yield from (f"  {line}" for line in lines([row.cells() for row in newest], width and width - 2))
    if result := _newest_result(paths[-NEWEST:]):
        yield f"newest result: {visible(str(result))}"
    if name := os.environ.get("GMMC_RUN"):
        yield f"commands are about GMMC_RUN: {visible(name)}"
    yield f"next: {visible(_next(newest[-1], paths[-1])) if newest else 'gmmc train digits_gen'}"


def _newest_result(paths: list[Path]) -> Path | None:
    results = [result for path in paths for result in (path / "results").glob("[!.]*.json")]
    return max(results, key=lambda path: path.stat().st_mtime_ns, default=None)


def _next(run: Row, path: Path) -> str:
    """The command that makes sense after what was done last."""
    which = f" --run {path}" if run.study else ""
    if run.status == "running":
        return f"gmmc watch --run {path}" if run.step else "gmmc runs ls, until it has saved its first checkpoint"
    if run.status == "damaged":
        return f"gmmc runs check {path}"
    if run.status == "diverged":
        return f"gmmc train {path / 'recipe.toml'} --set guard.on_divergence=rollback"
    if run.status in UNFINISHED:
        return f"gmmc train --resume{which}"
    if not (path / "results" / "eval-all.json").exists():
        return f"gmmc eval all{which}"
    if not (path / "report.html").exists():
        return f"gmmc report{which}"
    if not (path / "results" / "attack-audit.json").exists():
        return f"gmmc attack audit{which}"
    return "gmmc recipes ls, for another training"
