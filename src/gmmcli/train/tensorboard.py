"""The numbers of the log once more, as TensorBoard reads them."""

from importlib.util import find_spec
from typing import Any

from gmmcli.errors import MissingPartError
from gmmcli.recipe import Log
from gmmcli.run import Run

FLUSH = 10
"""Seconds after which what was written is on disk at the latest."""


def check_installed(log: Log) -> None:
    """Raise MissingPartError where a recipe asks for TensorBoard's files and the package that writes them is not installed."""
    if log.tensorboard and find_spec("tensorboard") is None:
        raise MissingPartError(
            "log.tensorboard needs the package tensorboard", "pip install 'gmmcli[tensorboard]', or set log.tensorboard=false"
        )


class TensorBoard:
    """Writes a file of its own into the run's ``tensorboard/``; made where a training starts, resumes or was rolled back.

    Args:
        run: the run.
        step: the last one that was taken. Of later steps TensorBoard drops what earlier files say.
    """

    def __init__(self, run: Run, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second, and only few have the package

        run.check_there()
        self._writer = SummaryWriter(run.path / "tensorboard", purge_step=step + 1, flush_secs=FLUSH)

    def write(self, line: dict[str, Any]) -> None:
        """Write the numbers of a line of metrics.jsonl, but for those of events."""
        if "event" in line:
            return
        for key, value in line.items():
            if key != "step" and isinstance(value, (int, float)):
                self._writer.add_scalar(key, value, line["step"])

    def close(self) -> None:
        """Write to disk what is not there yet."""
        self._writer.close()
