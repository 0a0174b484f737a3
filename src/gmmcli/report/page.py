"""The report as one self-contained page: everything inline, nothing fetched."""

from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from gmmcli.metrics.scores import score_label
from gmmcli.provenance import public_argv
from gmmcli.report.catalogue import format_value
from gmmcli.report.charts import charts
from gmmcli.report.claims import claim_results
from gmmcli.report.compare import Comparison
from gmmcli.report.published import paper


def page(comparison: Comparison, title: str, about: str = "", reload: int = 0) -> str:
    """Render a comparison as HTML; its charts are drawn by plotly, which is inlined.

    Args:
        comparison: the models.
        title: of the page.
        about: a sentence or two below it.
        reload: seconds after which a browser reads the page again; 0: never.
    """
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("gmmcli.report", "page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= {"format_value": format_value, "score_label": score_label}
    return environment.get_template("page.html").render(
        title=title,
        about=about,
        reload=reload,
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        comparison=comparison,
        claim_results=claim_results(comparison),
        paper=paper(),
        charts=charts(comparison.models),
        provenance=provenance(comparison),
        plotly=get_plotlyjs(),
    )


def provenance(comparison: Comparison) -> list[dict[str, Any]]:
    """One line for each run: what it is, how it ended, and what made it."""
    kept = ("status", "created", "wall_time_s", "peak_memory_mb", "device", "git", "python", "versions")
    return [
        {"model": model.name, "run": run.id, "seed": run.recipe.seed}
        | {key: run.provenance.get(key) for key in kept}
        | {"argv": argv if (argv := run.provenance.get("argv")) is None else public_argv(argv)}
        for model in comparison.models
        for run in model.runs
    ]
