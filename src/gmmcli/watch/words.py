"""What a line of the log says, in a sentence; for a terminal that cannot be drawn on, and for the events of the screen."""

from datetime import timedelta
from typing import Any

from gmmcli.errors import visible
from gmmcli.progress import clock
from gmmcli.watch.watched import Watched, number

NAMES = {
    "loss": "loss",
    "validation_accuracy": "validation accuracy",
    "energy_data": "E real",
    "energy_model": "E sampled",
    "accuracy": "batch accuracy",
    "sample_distance": "sample distance",
}


def figure(key: str, value: float) -> str:
    """A value as it is shown: accuracies in percent, others to three digits."""
    return f"{value:.1%}" if key.endswith("accuracy") else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def progress(watched: Watched) -> str:
    """How far a training is, and how long the rest takes."""
    of = f" of {watched.total:,} ({watched.step / watched.total:.0%})" if watched.total else ""
    left = watched.seconds_left
    return f"step {watched.step:,}{of}" + ("" if left is None else f", {remaining(left)} left")


def remaining(seconds: float) -> str:
    """A time to wait, in days where it is long."""
    return f"{timedelta(seconds=seconds).days:,} days" if seconds >= timedelta(days=2).total_seconds() else clock(seconds)


def event(line: dict[str, Any]) -> str:
    """An event of the log."""
    step, reason = f"step {line.get('step')}", visible(str(line.get("reason", "")))
    match line["event"]:
        case "rollback":
            return f"{step}: rolled back to step {line.get('to_step')}: {reason}"
        case "chains":
            return f"{step}: {reason}"
        case other:
            return f"{step}: {visible(str(other))}: {reason}"


def sentence(line: dict[str, Any], watched: Watched) -> str | None:
    """What a line says; of the last regular one also how far the training is. None where it says nothing that is shown."""
    if "event" in line:
        return event(line)
    said = [f"{name} {figure(key, value)}" for key, name in NAMES.items() if (value := number(line, key)) is not None]
    if not said:
        return None
    where = progress(watched) if line is watched.last else f"step {line.get('step')}"
    return f"{where}, {', '.join(said)}"
