"""What the paper printed and claimed (paper.toml), to stand beside what was measured."""

from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

import tomli

from gmmcli.report.catalogue import REFINEMENT, Protocol
from gmmcli.schema import build

FALLBACK = "cifar10"
"""The dataset whose published values stand beside those of data that the paper did not use."""


@dataclass(frozen=True)
class Row:
    """One model's line in a table."""

    model: str
    values: tuple[float, ...]
    """One for each metric."""
    family: str = ""
    """Which of our models it is about (``collect.family``)."""


@dataclass(frozen=True)
class Table:
    """One table of the paper."""

    name: str
    dataset: str
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""
    protocol: dict[str, str] = field(default_factory=dict)
    """Facts of how it was measured (``catalogue.Protocol``): where ours differ, it does not stand beside ours."""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.values) != len(self.metrics):
                raise ValueError(f"row {row.model} has {len(row.values)} values for {len(self.metrics)} metrics")


@dataclass(frozen=True)
class Claim:
    """That one family is better than another at something."""

    text: str
    where: str
    metric: str
    better: str
    than: str
    or_equal: bool = False


@dataclass(frozen=True)
class Paper:
    """paper.toml."""

    tables: tuple[Table, ...]
    claims: tuple[Claim, ...]

    def value(self, metric: str, family: str, dataset: str, protocol: Protocol | None = None) -> float | None:
        """The printed value of a family, or None where there is none, or none under such a protocol."""
        known = dict(protocol.facts) if protocol else {}
        if REFINEMENT in known:
            return None
        return next(
            (
                row.values[table.metrics.index(metric)]
                for table in self.tables
                if table.dataset == dataset
                and metric in table.metrics
                and (protocol is None or all(known.get(name) == value for name, value in table.protocol.items()))
                for row in table.rows
                if row.family == family
            ),
            None,
        )


@cache
def paper() -> Paper:
    """Read what comes with gmmc."""
    read: Paper = build(Paper, tomli.loads(files("gmmcli.report").joinpath("paper.toml").read_text(encoding="utf-8")))
    return read
