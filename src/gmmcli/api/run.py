"""A run in Python: classify, sample, restore, morph, export, and all that is measured."""

from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor

from gmmcli import run as runs
from gmmcli.api.arguments import Images, Name, Origin, checked
from gmmcli.api.measuring import Measuring
from gmmcli.errors import DataError, RecipeError
from gmmcli.evaluate.classify import Judgement, Verdict
from gmmcli.named import Device, class_indices, select_device
from gmmcli.types import Count, Labels, Natural, NonNegative, Positive, RawImages, to_bytes

AtMost64 = Annotated[int, Ge(1), Le(64)]


class Run(Measuring):
    """A run directory: its model, buffer, metrics and saved results, and what the commands do with them.

    A measurement is saved in the run with its figure, as that of the command is, and returned as its ``--json``. What measurements have
    in common:

    - ``data``: other images, NAME, ``folder:PATH`` or ``npz:PATH``; the run's own by default. ``split``: which of them.
    - ``n``: at most so many images, drawn at random; all by default.
    - ``seed``: the same seed gives the same figures, which are those of the command.
    - ``refine``: steps down the energy from each image before its class; ``refine_chains``: chains of each image, whose features are
      averaged; ``refine_noise``: standard deviation of the noise of a step, in [-1, 1], that of the run's chains by default.
    - ``best``: the weights of the best validation instead of the last.
    - ``device``: ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Raises:
        GmmcError: every method, where it cannot do what is asked: RecipeError for an argument, DataError for images, RunError or
            CheckpointError for a run without a checkpoint or with a damaged one.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._judges: dict[tuple[str, str], Judgement] = {}

    @checked
    def classify(self, images: Images, *, best: bool = False, device: Device = "auto") -> list[Verdict]:
        """Tell the class of images, how probable it is, and whether the model knows such images: ``gmmc classify``.

        The validation images, which set the temperature and the threshold, pass through the model at the first call alone.

        Args:
            images: bytes of shape (n, channel, height, width), of the size that the model takes; or image files, which are brought to
                that size: the shorter side is resized, the centre cropped.
            best: see the class.
            device: see the class.

        Raises:
            DataError: images of another shape or type, a file that is none, or a run with too few validation images.
        """
        judge = self._judge(best, device)
        read = _bytes("classify", images, judge.subject.card.image_shape)
        return judge(read) if len(read) else []

    def _judge(self, best: bool, device: Device) -> Judgement:
        key = self.checkpoint(best).digest("model"), device
        if key not in self._judges:
            self._judges[key] = Judgement(self._subject(best=best, device=device))
        return self._judges[key]

    @checked
    def sample(
        self,
        classes: str | int | Sequence[str | int] = "all",
        n: Count = 64,
        *,
        origin: Origin = "noise",
        steps: Natural | None = None,
        step_size: Positive | None = None,
        noise: NonNegative | None = None,
        seed: int = 1,
        best: bool = False,
        device: Device = "auto",
    ) -> tuple[RawImages, Labels]:
        """Draw images of classes: ``gmmc sample``.

        Args:
            classes: by name or index; all of them by default.
            n: images in all, balanced over the classes.
            origin: fresh chains from noise, or the replay buffer as training left it.
            steps: updates of a fresh chain; the recipe's by default.
            step_size: of a fresh chain; the recipe's by default.
            noise: standard deviation of the noise that fresh chains set out with; the recipe's by default.
            seed: the same seed gives the same images.
            best: see the class.
            device: see the class.

        Returns:
            Bytes of shape (n, channel, height, width), class by class, and the index of each one's class.

        Raises:
            RecipeError: there is no such class, or the buffer holds fewer images.
            DivergedError: the images are not finite.
        """
        from gmmcli.evaluate.samples import Draw, spread
        from gmmcli.evaluate.subject import one_checkpoint

        _, card, model = one_checkpoint(self, best, select_device(device))
        named = [classes] if isinstance(classes, str | int) else classes
        indices = sorted({k for name in named for k in class_indices(str(name), card.class_names)})
        if not indices:
            raise RecipeError("sample: classes is empty", 'name a class, or "all"')
        images, labels, _ = Draw(origin, steps, step_size, noise, seed)(self, model, spread(indices, n))
        return to_bytes(images), labels

    @checked
    def restore(
        self,
        image: Images,
        mask: Images | None = None,
        *,
        denoise: Annotated[float, Ge(0.001), Le(2)] | None = None,
        label: str | int | None = None,
        n: AtMost64 = 8,
        seed: int = 1,
        best: bool = False,
        device: Device = "auto",
    ) -> RawImages:
        """Fill in missing pixels, or remove noise: ``gmmc restore``, with ``mask`` or ``denoise``.

        Args:
            image: one, as ``classify`` takes it.
            mask: an image that is white where pixels are to be filled in.
            denoise: standard deviation of the noise to remove, on a scale of 0 to 1.
            label: the image's class by name or index; unknown by default.
            n: number of answers to a mask, at most 64.
            seed: of their chains.
            best: see the class.
            device: see the class.

        Returns:
            Bytes of shape (n, channel, height, width); one image where noise is removed.
        """
        from gmmcli.evaluate.restore import known_of, restored

        subject = self._subject(best=best, device=device)
        shape, named = subject.card.image_shape, None if label is None else str(label)
        known = None if mask is None else known_of(_one("restore", mask, shape))
        return to_bytes(restored(subject, _one("restore", image, shape), known, denoise, named, n, seed)[1].cpu())

    @checked
    def morph(
        self,
        origin: str | int,
        to: str | int,
        *,
        n: AtMost64 = 8,
        frames: Annotated[int, Ge(2), Le(200)] = 12,
        seed: int = 1,
        best: bool = False,
        device: Device = "auto",
    ) -> Tensor:
        """Lead samples of one class to another, each by name or index: ``gmmc morph``.

        Args:
            origin: the class to begin with.
            to: the class to end with.
            n: number of samples, at most 64.
            frames: images on the way, both ends included; at most 200.
            seed: of the samples.
            best: see the class.
            device: see the class.

        Returns:
            Bytes of shape (frame, n, channel, height, width).
        """
        from gmmcli.evaluate.restore import morphed

        found, _, _ = morphed(self._subject(best=best, device=device), str(origin), str(to), n, frames, seed)
        return torch.stack([to_bytes(images) for images in found])

    @checked
    def export(self, out: Path | None = None, *, onnx: bool = True, best: bool = False, device: Device = "auto") -> list[Path]:
        """Export the model, as model.onnx, model.safetensors and README.md: ``gmmc export``.

        Args:
            out: the folder; export/ in the run by default.
            onnx: write model.onnx; needs the packages of ``gmmcli[onnx]``.
            best: see the class.
            device: see the class.

        Returns:
            The paths of the files.

        Raises:
            MissingPartError: packages of ``gmmcli[onnx]`` are not installed.
        """
        from gmmcli.evaluate.export import export

        return export(self._judge(best, device), out or self.output / "export", onnx)


def _one(method: str, image: Images, shape: tuple[int, int, int]) -> RawImages:
    found = _bytes(method, image, shape)
    if len(found) != 1:
        raise DataError(f"{method}: {len(found)} images were given, and it takes one", "give them one by one")
    return found


def _bytes(method: str, images: Images, shape: tuple[int, int, int]) -> RawImages:
    """Images as bytes of this shape (channel, height, width); DataError for what is none."""
    if isinstance(images, Tensor | np.ndarray):
        found = torch.as_tensor(images)
        if found.dtype != torch.uint8 or found.ndim != 4 or found.shape[1:] != shape:
            wanted = f"bytes (uint8) of shape (n, {', '.join(map(str, shape))})"
            raise DataError(
                f"{method}: images are {found.dtype} of shape {tuple(found.shape)}, and this run takes {wanted}",
                "gmmcli.to_bytes makes bytes of images in [-1, 1]; image files are brought to size",
            )
        return found
    from gmmcli.data.decoding import decode

    files = [images] if isinstance(images, str | PathLike) else images
    channels, size, _ = shape
    arrays = [decode(Path(fspath(file)), size, channels) for file in files]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2) if arrays else torch.empty(0, *shape, dtype=torch.uint8)


def open_run(name: Name | None = None, runs_dir: Name | None = None, *, unfinished: bool = False) -> Run:
    """Open a run by path, id, unique prefix or its recipe's name; else $GMMC_RUN; else the newest with a complete checkpoint.

    Args:
        name: the run, or None for the default. A recipe's name means its newest run with a complete checkpoint.
        runs_dir: where runs are; $GMMC_RUNS_DIR or ./runs by default.
        unfinished: for a recipe's name or None, take the newest run even if it has no checkpoint.

    Raises:
        RunError: no run matches, or several do.
    """
    path = None if runs_dir is None else Path(runs_dir)
    return Run(runs.open_run(name if name is None else fspath(name), path, unfinished=unfinished).path)


def list_runs(runs_dir: Name | None = None) -> list[Run]:
    """Open the runs of a directory, $GMMC_RUNS_DIR or ./runs by default, oldest first."""
    return [Run(found.path) for found in runs.list_runs(Path(runs_dir) if runs_dir is not None else runs.default_runs_dir())]
