"""A comparison as text: a table on a terminal, and a page of Markdown."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from gmmcli.report.collect import ACCURACY
from gmmcli.report.compare import Comparison, Line, said, summarised
from gmmcli.report.published import paper

RULE = (
    "Several seeds: mean ± standard deviation; one: the figure and its 95% interval over test images. **Bold** is best, and whatever may "
    "be as good: its spread, the wider of deviation and interval, overlaps with the best one's."
)


def terminal(comparison: Comparison) -> Group:
    """Every figure, a column a model, the best in bold."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", overflow="fold")
    for model in comparison.models:
        table.add_column(Text(f"{model.name}\n{_count(len(model.runs), 'run')}"), overflow="fold")
    for group, lines in comparison.groups:
        table.add_row(Text(group, style="bold underline"))
        for line in lines:
            cells = (
                Text("" if s is None else said(line.metric, s.mean), "bold" if i in line.best else "") for i, s in enumerate(line.summaries)
            )
            table.add_row(Text(_label(line)), *cells)
    return Group(table, Text("Means over seeds. Bold: best, or with a spread that overlaps with the best one's; the page has the spreads."))


def document(comparison: Comparison) -> dict[str, Any]:
    """Every figure as plain values, for ``--json``: by model and metric, with the answers and the claims."""
    lines = [line for _, lines in comparison.groups for line in lines]
    values = {
        model.name: {
            "family": model.family,
            "runs": [run.id for run in model.runs],
            "figures": {
                line.metric.key: {**summary._asdict(), "published": line.published[i], "best": i in line.best}
                for line in lines
                if (summary := line.summaries[i])
            },
        }
        for i, model in enumerate(comparison.models)
    }
    return {
        "schema": 1,
        "command": "report",
        "published_on": comparison.dataset,
        "values": values,
        "answers": [
            {"question": c.question, "metric": c.metric.key, "best": c.model.name, "as_good": [m.name for m in c.tied]}
            for c in comparison.champions()
        ],
        "claims": [
            {"text": v.claim.text, "where": v.claim.where, "printed": v.published, "measured": v.measured, "verdict": v.verdict}
            for v in comparison.verdicts()
        ],
    }


def markdown(comparison: Comparison, title: str, about: str = "") -> str:
    """The whole report as Markdown: answers, figures, claims, published tables, recipes and protocols."""
    return "\n".join([f"# {title}", "", *([about, ""] if about else []), *_answers(comparison), *_figures(comparison), *_rest(comparison)])


def _answers(comparison: Comparison) -> Iterator[str]:
    if champions := comparison.champions():
        yield from ("## Which is best at what", "", "| question | answer | figure | may be as good |", "|---|---|---|---|")
        for one in champions:
            tied = ", ".join(model.name for model in one.tied) or "none"
            behind = f"; its accuracy is {summarised(ACCURACY, one.accuracy)}" if one.accuracy else ""
            yield _row([one.question, f"**{one.model.name}**", f"{one.metric.label}: {summarised(one.metric, one.summary)}{behind}", tied])
        yield ""


def _figures(comparison: Comparison) -> Iterator[str]:
    yield from ("## Figures", "", RULE, f"In brackets what the paper printed of the same kind of model on {comparison.dataset}.", "")
    yield _row(["", *(f"{model.name} ({_count(len(model.runs), 'run')})" for model in comparison.models)])
    yield "|---|" + "---|" * len(comparison.models)
    for group, lines in comparison.groups:
        yield f"| *{group}* |" + " |" * len(comparison.models)
        for line in lines:
            cells = [
                (f"**{cell}**" if best else cell) + (f" [{said(line.metric, printed)}]" if printed is not None else "")
                for (cell, best), printed in zip(_cells(line), line.published, strict=True)
            ]
            yield _row([_label(line), *cells])
    yield ""


def _rest(comparison: Comparison) -> Iterator[str]:
    yield from ("## The paper's claims", "", "| claim | where | printed | measured | verdict |", "|---|---|---|---|---|")
    for one in comparison.verdicts():
        yield _row([one.claim.text, one.claim.where, one.published, one.measured, one.verdict])
    yield from ("", "## Published figures", "")
    for table in paper().tables:
        yield from (f"**{table.name}**" + (f" {table.note}" if table.note else ""), "", _row(["", *table.metrics]))
        yield "|---|" + "---|" * len(table.metrics)
        yield from (_row([row.model, *(f"{value:g}" for value in row.values)]) for row in table.rows)
        yield ""
    if differences := comparison.differences():
        yield from ("## Where the recipes differ", "", _row(["key", *(model.name for model in comparison.models)]))
        yield "|---|" + "---|" * len(comparison.models)
        yield from (_row([f"`{key}`", *("" if value is None else f"{value}" for value in values)]) for key, values in differences.items())
        yield ""
    yield from ("## Protocol", "")
    yield from (f"- {line}" for line in comparison.protocol())


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _cells(line: Line) -> list[tuple[str, bool]]:
    """What stands under each model, and whether it is best."""
    return [("" if s is None else summarised(line.metric, s), i in line.best) for i, s in enumerate(line.summaries)]


def _label(line: Line) -> str:
    return line.metric.label + {"high": " ↑", "low": " ↓", "": ""}[line.metric.better]


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")
