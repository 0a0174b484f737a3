"""A checkpoint of the authors becomes a run directory."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import file_digest
from pathlib import Path
from typing import Any

import torch

from gmmcli.checkpoint import Checkpoint, Part
from gmmcli.core.energy import joint_energy, shared_variance
from gmmcli.data.dataset import Dataset
from gmmcli.data.sources import parse_source
from gmmcli.errors import RecipeError
from gmmcli.importer.authors import SHAPE, Imported, read
from gmmcli.importer.torch_file import opened
from gmmcli.metrics.outputs import outputs
from gmmcli.model_card import ModelCard
from gmmcli.progress import image_progress
from gmmcli.recipe import Recipe, shipped
from gmmcli.run import Run
from gmmcli.storage import file_stem

SHIPPED = {("GMMC", 10): "cifar10_gen", ("GMMC", 100): "cifar100_gen", ("JEM", 10): "cifar10_jem", ("JEM", 100): "cifar100_jem"}
"""The recipes that have what a file does not say: the authors' settings of training and sampling, and their data."""


@dataclass(frozen=True)
class Import:
    """A run that was made from a file, and what is to be known of it."""

    run: Run
    card: ModelCard
    about: dict[str, Any]
    """What provenance.json says of the file."""
    notes: tuple[str, ...]
    """What is missing or assumed, a sentence each."""


def import_checkpoint(
    path: Path, runs_dir: Path, *, name: str | None = None, data: str | None = None, device: torch.device | str = "cpu", quiet: bool = True
) -> Import:
    """Write the run directory of a checkpoint of GMMC or JEM; nothing is written where an error is raised.

    Args:
        path: the file.
        runs_dir: where the run is made.
        name: of its recipe; the file's by default.
        data: the data that the model was trained on, ``NAME|KIND:PATH``; gamma^2 is estimated on its training images.
        device: where that is done.
        quiet: without progress.

    Raises:
        CheckpointError: the file is none of theirs, is damaged, or asks to run something.
        RecipeError: the name is none, or the data have other classes or images.
        DataError: the data are missing or broken.
    """
    with opened(path) as file:
        found, form = read(file), file.form
    dataset = _dataset(data, found) if data else None
    recipe = _recipe(found, name or file_stem(path.stem), data)
    names = dataset.class_names if dataset else tuple(map(str, range(found.n_classes)))
    card = ModelCard(recipe, names, SHAPE, None if found.origin == "GMMC" else 1.0)
    if dataset and found.origin == "GMMC":
        card = replace(card, gamma2=_gamma2(card, found, dataset, device, quiet))
    with path.open("rb") as stream:
        digest = file_digest(stream, "sha256").hexdigest()
    about = {"file": path.name, "sha256": digest, "bytes": path.stat().st_size, "format": form, "origin": found.origin}
    run = Run.create(recipe, runs_dir, ["gmmc", "import", path.name, *(["--data", data] if data else [])])
    parts = {"model": Part(found.weights, card.dump())}
    if dataset:
        run.keep_fingerprint(dataset)
    if found.buffer is not None:
        parts["buffer"] = Part({"images": found.buffer}, {})
    Checkpoint.save(run.path / "checkpoints", 0, parts, {"step": 0, "best_step": 0})
    run.describe(status="imported", imported=about)
    return Import(run, card, about, tuple(_notes(found, card, data)))


def _dataset(data: str, found: Imported) -> Dataset:
    dataset = parse_source(data).load()
    if (dataset.shape, dataset.n_classes) != (SHAPE, found.n_classes):
        channels, height, width = dataset.shape
        raise RecipeError(
            f"{dataset.name} has {dataset.n_classes} classes and images of {height} x {width} x {channels}, "
            f"the model {found.n_classes} classes and images of 32 x 32 x 3",
            "give --data what it was trained on",
        )
    return dataset


def _recipe(found: Imported, name: str, data: str | None) -> Recipe:
    """The authors' recipe with the network, the data and the buffer of the file."""
    known = SHIPPED.get((found.origin, found.n_classes))
    if known is None and data is None:
        raise RecipeError(f"the model has {found.n_classes} classes, and neither CIFAR-10 nor CIFAR-100 has", "give its data with --data")
    recipe = Recipe.load(shipped()[known or SHIPPED[found.origin, 10]])
    source = parse_source(data) if data else recipe.data.source
    slots = round(recipe.chains.buffer_size / found.n_classes) if found.buffer is None else found.buffer.shape[1]
    chains = replace(recipe.chains, buffer_size=slots * found.n_classes)
    try:
        return replace(recipe, name=name, model=found.model, chains=chains, data=replace(recipe.data, source=source))
    except ValueError as error:
        raise RecipeError(str(error), "choose a name with --name") from error


def _gamma2(card: ModelCard, found: Imported, dataset: Dataset, device: torch.device | str, quiet: bool) -> float:
    """The shared variance on the training images (Sec. 3.1)."""
    model = card.build()
    model.load_state_dict(found.weights)
    card.recipe.compute.place(model, torch.device(device))
    with image_progress(f"gamma^2 on {dataset.title} train", len(dataset.train), quiet) as progress:
        logits = outputs(model, dataset.train, progress=progress).logits
    return float(shared_variance(joint_energy(logits, dataset.train.labels), model.means.shape[1]))


def _notes(found: Imported, card: ModelCard, data: str | None) -> Sequence[str]:
    notes = [found.left_out] if found.left_out else []
    if data is None:
        notes.append(f"the data are taken to be {card.recipe.data.source.kind}, and classes are numbered; --data says what they are")
    if card.gamma2 is None:
        notes.append("gamma^2 is not in the file, and eval accuracy, calibrate and ood need it: import the file again with --data SOURCE")
    return notes
