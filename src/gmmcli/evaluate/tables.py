"""Results as tables on a terminal."""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from types import MappingProxyType
from typing import Any

from gmmcli.layout import Part, Table
from gmmcli.metrics.metric import METRICS, SAMPLE_METRICS, Metric
from gmmcli.metrics.scores import score_label

SHARES = {
    "accuracy",
    "ece",
    "mce",
    "ace",
    "saturated",
    "precision",
    "recall",
    "coverage",
    "label_agreement",
    "judge_accuracy",
    "copies",
    "clean_accuracy",
    "success_rate",
    "trustworthiness",
    "knn_accuracy",
    "knn_accuracy_features",
}
INTERVALS = {"accuracy": "ci95", "success_rate": "success_ci95", "clean_accuracy": "clean_ci95"}


def registered(key: str) -> Metric[Any] | None:
    """The metric that an installed package adds under this key."""
    return METRICS.get(key) or SAMPLE_METRICS.get(key)


def format_estimate(key: str, values: Mapping[str, Any]) -> str:
    """Return a value with its interval in brackets, shares in percent."""
    metric = registered(key)
    share = metric.unit == "share" if metric else key in SHARES

    def number(value: float) -> str:
        if share:
            return f"{100 * value:.2f}"
        return f"{value:.3f}" if 0.01 <= abs(value) < 1000 or not value else f"{value:.4g}"

    interval = values.get(INTERVALS.get(key, f"{key}_ci95"))
    return number(values[key]) + "%" * share + (f" [{', '.join(map(number, interval))}]" if interval else "")


def result_table(result: dict[str, Any]) -> list[Part]:
    """Return a result for the terminal: a line with command, run, step, data and n, then its table."""
    images, n = f"{result['dataset']} {result['split']}", f"{result['n']:,}"
    images = f"{n} samples against {images}" if result["command"] == "eval generate" else f"{images}, n = {n}"
    about = f"{result['command']}: run {result['run']}, step {result['step']:,}, {images}"
    return [about, *FILLED.get(result["command"], _plain)(result["values"])]


def _plain(values: Mapping[str, Any], beside: Mapping[str, Mapping[str, Any]] = MappingProxyType({})) -> list[Table]:
    """A row for each value, and beside it, without intervals, those of other images."""
    table = Table(("metric", f"{'samples' if beside else 'value'} [95% interval]", *beside))
    alone, said = [""] * len(beside), Table(sentences=True)
    for key, value in values.items():
        if isinstance(value, float):
            others = (format_estimate(key, {key: other[key]}) if key in other else "" for other in beside.values())
            table.add(metric.label if (metric := registered(key)) else key, format_estimate(key, values), *others)
        elif isinstance(value, dict) and all(isinstance(inner, float) for name, inner in value.items() if not name.endswith("_ci95")):
            for inner in value:
                if not inner.endswith("_ci95"):
                    table.add(inner, format_estimate(inner, value), *alone)
        elif isinstance(value, str):
            said.add(key, value)
    return [table, said]


def _accuracy(values: dict[str, Any]) -> list[Table]:
    table, *others = _plain({key: value for key, value in values.items() if key not in ("per_class", "confusion")})
    for name, row in values["per_class"].items():
        table.add(f"  class {name}", f"{format_estimate('accuracy', row)}, n = {row['n']:,}" if row["n"] else "no images")
    return [table, *others]


def _generate(values: dict[str, Any]) -> list[Table]:
    """The samples' values, and beside them those of the images that chains start from and of real test images."""
    beside: dict[str, Any] = {name: values[name] for name in ("starts", "real") if name in values}
    return _plain({key: value for key, value in values.items() if key not in beside}, beside)


def _calibrate(values: dict[str, Any]) -> list[Table]:
    variants = values["variants"].values()
    table = Table(("", *values["variants"]))
    for key in ("scale", "ece", "mce", "ace", "nll", "brier", "saturated"):
        table.add(key, *(format_estimate(key, variant) for variant in variants))
    return [table]


def _ood(values: dict[str, Any]) -> list[Part]:
    parts: list[Part] = []
    for name, scores in values.items():
        if "missing" in scores:
            parts.append(f"{name} is missing: {scores['missing']}; {scores['hint']}")
            continue
        table = Table(("score", "AUROC", "AUPR in", "AUPR out", "FPR95"))
        for score, row in scores.items():
            table.add(score_label(score), format_estimate("auroc", row), *(f"{row[key]:.3f}" for key in ("aupr_in", "aupr_out", "fpr95")))
        parts += [f"against {name}", table]
    return parts


def _attack(values: dict[str, Any]) -> list[Part]:
    """A row for each radius; of a refined classifier with what each way to attack left, and what the worst one leaves under new noise."""
    ways = [*next(iter(values["eps"].values())).get("ways", {})]
    table = Table(("eps", "accuracy [95% interval]", *([*ways, "new noise"] if ways else ["zero gradients"])))
    clean = format_estimate("accuracy", {"accuracy": values["clean_accuracy"], "ci95": values["clean_ci95"]})
    table.add("0", clean, *[""] * (len(table.columns) - 2))
    for eps, row in values["eps"].items():
        shares = [*row["ways"].values(), row["new_noise"]] if ways else [row["zero_gradient_share"]]
        left = ("" if share is None else f"{100 * share:.1f}%" for share in shares)
        table.add(f"{eps} = {row['eps']:.4f}", format_estimate("accuracy", row), *left)
    return [table]


def _audit(values: dict[str, Any]) -> list[Part]:
    table = Table(("attack", *(f"{float(255 * Fraction(eps)):g}" for eps in values["worst_case"])))
    rows = {"worst case": values["worst_case"]} | values["attacks"]
    for name, row in rows.items():
        table.add(name, *(f"{100 * row[eps]['accuracy']:.1f}" if eps in row else "" for eps in values["worst_case"]))
    verdicts = Table(sentences=True)
    for verdict in values["verdicts"]:
        verdicts.add("FIRED" if verdict["fired"] else "clear", f"{verdict['name']}: {verdict['why']}")
    return ["accuracy in %, by eps x 255", table, verdicts, values["sentence"]]


FILLED: dict[str, Callable[[dict[str, Any]], Sequence[Part]]] = {
    "eval accuracy": _accuracy,
    "eval calibrate": _calibrate,
    "eval generate": _generate,
    "eval ood": _ood,
    "attack audit": _audit,
    **{f"attack {kind}": _attack for kind in ("fgsm", "pgd", "apgd", "square")},
}
