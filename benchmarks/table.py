"""The benchmark table: figures, the machine they are of, and the files they are kept in (benchmarks/results/)."""

import json
import os
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import torch

from gmmcli.provenance import git_revision, versions

RESULTS = Path(__file__).parent / "results"
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8", "sve", "bf16")
LEADING = {
    "step": ("ours fp32 / plain", "ours bf16 / plain", "share of peak, fp32", "share of peak, bf16"),
    "buffer": ("1,000,000 slots / 1,000",),
    "checkpoint": ("background: pause",),
    "evaluation": ("eval accuracy", "eval ood, with mass"),
    "attack": ("pgd",),
    "memory": ("growth",),
    "startup": ("gmmc --help", "first step of digits_gen"),
    "scaling": ("2 joined / 1",),
}
"""The figures that the leaderboard shows of a run, by part."""


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    name: str
    unit: str
    values: tuple[float, ...]
    """As measured, one a round."""

    def cells(self) -> list[str]:
        """Name, median, least and greatest value, and their number."""
        return [self.name, *(f"{value:,.4g} {self.unit}".rstrip() for value in self.spread), str(len(self.values))]

    @property
    def spread(self) -> tuple[float, float, float]:
        """Median, least and greatest value."""
        return median(self.values), min(self.values), max(self.values)


Parts = dict[str, list[Figure]]


def ratios(name: str, of: list[float], to: list[float]) -> Figure:
    """How many times as large each value is as the one measured beside it."""
    return Figure(name, "x", tuple(a / b for a, b in zip(of, to, strict=True)))


def machine() -> dict[str, Any]:
    """What the figures depend on beside the code."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    facts = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    flags = facts.get("flags", facts.get("Features", "")).split()
    return {
        "cpu": facts.get("model name", platform.processor() or platform.machine()),
        "cores": os.cpu_count(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        **versions(["torch", "gmmcli"]),
    }


def revision() -> str:
    """The commit that is measured, with ``+`` for changes to it."""
    return git_revision(Path(__file__).parent) or "unknown"


def write(parts: Parts, folder: Path, commit: str, load: float, seconds: float) -> Path:
    """Write the figures as JSON and as Markdown, named by date and commit, and return the latter's path.

    Args:
        parts: the figures, part by part.
        folder: where to.
        commit: what was measured, as ``revision`` said before the first measurement.
        load: average number of other jobs, measured before the first.
        seconds: how long all took.
    """
    now = datetime.now(UTC)
    facts = {"schema": 1, "date": f"{now:%Y-%m-%dT%H:%M:%SZ}", "commit": commit, "load": load, "seconds": round(seconds)}
    about = facts | {"machine": machine()}
    stem = f"{now:%Y-%m-%d-%H%M}-{commit[:9]}{'-changed' if commit.endswith('+') else ''}"
    folder.mkdir(parents=True, exist_ok=True)
    document = about | {"parts": {part: [asdict(figure) for figure in figures] for part, figures in parts.items()}}
    (folder / f"{stem}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    page = folder / f"{stem}.md"
    page.write_text(f"# Benchmark of {now:%Y-%m-%d}, commit {commit[:9]}\n\n{about_text(about)}\n\n{table(parts)}\n", encoding="utf-8")
    return page


def about_text(about: dict[str, Any]) -> str:
    """The machine in a sentence."""
    of, changed = about["machine"], " with uncommitted changes" if about["commit"].endswith("+") else ""
    where = f"{of['gpu']}, {of['cpu']}" if of["gpu"] else of["cpu"]
    flags = ", ".join(of["flags"]) or "no flags of note"
    return (
        f"Commit {about['commit'].rstrip('+')[:9]}{changed}. {where}, {of['cores']} cores ({flags}), {of['threads']} threads, "
        f"torch {of['torch']}, Python {of['python']}. Load before the first measurement: {about['load']:.1f}; {about['seconds']} s in all."
    )


def table(parts: Parts) -> str:
    """All figures as one Markdown table."""
    rows = [[part, *figure.cells()] for part, figures in parts.items() for figure in figures]
    return markdown(["part", "figure", "median", "least", "greatest", "n"], rows)


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def leaderboard(folder: Path) -> str:
    """All runs of a folder, the newest first: a row a run."""
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"), reverse=True)]
    wanted = [(part, name) for part, names in LEADING.items() for name in names]
    rows = []
    for document in documents:
        of = document["machine"]
        found = {(part, line["name"]): Figure(**line) for part, lines in document["parts"].items() for line in lines}
        cells = [f"{found[key].spread[0]:,.3g} {found[key].unit}".rstrip() if key in found else "" for key in wanted]
        where = f"{of['cpu']}, {of['threads']} threads, load {document['load']:.1f}"
        rows.append([document["date"][:10], document["commit"][:9] + "+" * document["commit"].endswith("+"), where, *cells])
    return markdown(["date", "commit", "machine", *(f"{part}: {name}" for part, name in wanted)], rows)
