"""A picture of the replay buffer during training."""

from pathlib import Path

from gmmcli.core.buffer import decode
from gmmcli.data.pictures import save_grid
from gmmcli.distributed import by_main
from gmmcli.train.setup import Setup
from gmmcli.train.state import TrainState

ROWS, COLUMNS = 20, 10


@by_main
def save_preview(setup: Setup, state: TrainState, folder: Path) -> None:
    """Draw the first chains of each class in the buffer, labelled where chains have classes; a training without chains has no picture."""
    if state.chains is None:
        return
    images = decode(state.chains.buffer.images[:ROWS, :COLUMNS])
    labelled = not setup.recipe.chains.classless
    rows = list(zip((name if labelled else "" for name in setup.dataset.class_names), images, strict=False))
    save_grid(rows, folder / f"preview-{state.step:08d}.png", f"{setup.recipe.name}: chains after {state.step} training steps")
