"""Checkpoints written in a thread while training goes on."""

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from gmmcli.checkpoint import Checkpoint
from gmmcli.data.dataset import Dataset
from gmmcli.distributed import another_group
from gmmcli.run import Run
from gmmcli.train.state import TrainState


class Saver:
    """Writes the checkpoints of a training one at a time; leaving its ``with`` block waits for the last.

    What went wrong with a checkpoint is raised when the next one is begun, by ``wait``, or where the block ends.
    """

    def __init__(self, run: Run, dataset: Dataset) -> None:
        self.run, self.dataset = run, dataset
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._group = another_group()
        self._begun: Future[Checkpoint] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._thread.shutdown()
        if error is None:
            self.wait()

    def begin(self, state: TrainState) -> None:
        """Begin to write a state, once the one before is on disk; the training stops only while it is copied."""
        self.wait()
        self._begun = self._thread.submit(state.snapshot(self.run, self.dataset).write, self._group)

    def wait(self) -> None:
        """Wait until every checkpoint that was begun is on disk.

        Raises:
            OSError: the disk is full or broken.
        """
        begun, self._begun = self._begun, None
        if begun is not None:
            begun.result()
