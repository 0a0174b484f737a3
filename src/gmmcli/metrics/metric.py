"""Metrics that installed packages add: of a classifier's outputs, and of samples (docs/extending.md)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Generic, Literal, NamedTuple, ParamSpec

from gmmcli.errors import RecipeError
from gmmcli.registry import Registry
from gmmcli.types import Features, Labels, Logits

Inputs = ParamSpec("Inputs")
Unit = Literal["share", "AUROC", ""]
Better = Literal["high", "low", ""]


class Estimate(NamedTuple):
    """A number that was measured."""

    value: float
    ci95: tuple[float, float] | None = None
    """Its 95% interval over images; without one it is never better than another."""


@dataclass(frozen=True)
class Metric(Generic[Inputs]):
    """A metric; its key in results is its name in the registry."""

    label: str
    """What tables call it."""
    measure: Callable[Inputs, Estimate]
    unit: Unit = "share"
    """Shares are shown in percent; shares and AUROC lie in [0, 1]."""
    better: Better = "high"
    """Which values are better; "" where neither are."""


METRICS: Registry[Metric[[Logits, Labels, float]]] = Registry("metrics", {}, Metric)
"""Of a classifier: of the logits (image, class) in float32, the labels (image,) and gamma^2.
``eval accuracy`` measures them."""
SAMPLE_METRICS: Registry[Metric[[Features, Features, int]]] = Registry("sample_metrics", {}, Metric)
"""Of samples: of their features (sample, feature), those of the reference (image, feature), and a seed.
``eval generate`` measures them."""


def with_metrics(
    values: Mapping[str, Any], metrics: Registry[Metric[Inputs]], *inputs: Inputs.args, **named: Inputs.kwargs
) -> dict[str, Any]:
    """Return a result's values and, behind them, those of all registered metrics; None for a value that is not finite.

    Raises:
        RecipeError: a metric has the key of another value, is no ``Metric``, or returns no ``Estimate``.
    """
    added: dict[str, Any] = {}
    for key, metric in metrics.items():
        if key in values:
            raise RecipeError(
                f"an installed package adds the metric {key!r}, which is the key of another value of this result",
                f"rename the entry point in the group {metrics.group}, or uninstall the package",
            )
        estimate = metric.measure(*inputs, **named)
        if not isinstance(estimate, Estimate):
            raise RecipeError(
                f"an installed package adds {key!r} to gmmcli's {metrics.family}, which does not return an Estimate",
                "fix the package (docs/extending.md), or uninstall it",
            )
        added[key] = float(estimate.value) if isfinite(estimate.value) else None
        if estimate.ci95:
            added[f"{key}_ci95"] = [float(end) for end in estimate.ci95]
    return {**values, **added}
