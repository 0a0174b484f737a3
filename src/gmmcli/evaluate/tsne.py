"""t-SNE of runs side by side (Fig. 1): embedded, measured, saved and drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gmmcli.data.dataset import Split, concatenate
from gmmcli.distributed import once
from gmmcli.evaluate import plots
from gmmcli.evaluate.measured import Measured, save
from gmmcli.evaluate.samples import Draw, spread
from gmmcli.evaluate.subject import Subject
from gmmcli.metrics.embedding import check_enough, embed, embedding_protocol, embedding_values
from gmmcli.metrics.features.spaces import Space
from gmmcli.metrics.outputs import outputs
from gmmcli.storage import file_stem, placed, replacing
from gmmcli.types import Features


@dataclass(frozen=True)
class Embedding:
    """The settings of a t-SNE."""

    space: Space | None = None
    """Whose features to embed; each run's own by default."""
    draw: Draw = field(default_factory=lambda: Draw("buffer"))
    per_class: int = 0
    """Number of samples per class to embed beside the images."""
    seed: int = 1
    """Of PCA and t-SNE."""

    @property
    def words(self) -> list[str]:
        """The settings that differ from their defaults, for a result's name."""
        samples = [f"samples {self.per_class} per class", *[self.draw.origin] * (self.draw.origin != "buffer")]
        return ([self.space.name] if self.space else []) + samples * bool(self.per_class)


def tsne(subjects: Sequence[Subject], settings: Embedding, *, out: Path | None = None, quiet: bool = True) -> list[Measured]:
    """Embed each subject's images, with samples of its run where the settings say so; one figure for all.

    Args:
        subjects: runs that know the same classes.
        settings: what to embed.
        out: the figure; in the first run's figures/ by default.
        quiet: no progress.

    Returns:
        A result for each subject, with its coordinates saved as .npz and .csv; the figure's files are those of the first.
    """
    results, planes = [], {}
    for subject in subjects:
        result, arrays = _embedded(subject, settings, quiet)
        results.append(_saved(subject, result, settings.words, arrays))
        title = f"{subject.run.id}\nstep {subject.step:,}, k-NN accuracy {result['values']['knn_accuracy']:.1%}"
        planes[title] = (arrays["plane"], arrays["labels"], arrays["sampled"])
    first = subjects[0]
    beside = ["beside", *(subject.run.id for subject in subjects[1:])] * (len(subjects) > 1)  # not the first run's own figure
    name = file_stem(first.name("tsne", *settings.words, *beside))
    figure = plots.scatter(planes, first.card.class_names)
    pictures = once(partial(plots.save, figure, placed(out, first.run.output / "figures" / f"{name}.png")))
    return [results[0]._replace(pictures=[*pictures, *results[0].pictures]), *results[1:]]


def _embedded(subject: Subject, settings: Embedding, quiet: bool) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A subject's result, and the arrays that its values are computed from; values are of real images alone."""
    n, space = len(subject.images), settings.space
    check_enough(n)
    protocol = embedding_protocol(settings.seed) | {"features": space.about if space else "the run's own"}
    features = space.embed(subject.images) if space else subject.outputs(quiet=quiet).features
    shown = subject.images
    if settings.per_class:
        samples, origin = _samples(subject, settings)
        features = torch.cat([features, _features(subject, space, samples)])
        shown = concatenate(shown, samples)
        protocol["samples"] = origin | {"n": len(samples)}
    images, labels = shown.batch()
    plane = embed(features, settings.seed)
    values = embedding_values(features[:n], plane[:n], labels[:n])
    sampled = np.arange(len(labels)) >= n
    arrays = {"plane": plane, "labels": labels.numpy(), "sampled": sampled, "images": images.numpy()}
    return subject.result("tsne", protocol, values), arrays


def _samples(subject: Subject, settings: Embedding) -> tuple[Split, dict[str, Any]]:
    classes = range(len(subject.card.class_names))
    drawn = settings.draw(subject.run, subject.model, spread(classes, settings.per_class * len(classes)))
    return drawn.to_split(), drawn.protocol


def _features(subject: Subject, space: Space | None, samples: Split) -> Features:
    return space.embed(samples) if space else outputs(subject.model, samples).features


def _saved(subject: Subject, result: dict[str, Any], words: Sequence[str], arrays: Mapping[str, np.ndarray]) -> Measured:
    """Save a result with its arrays, and the coordinates as .csv as well."""
    measured = save(subject, result, *words, arrays=arrays)
    path = subject.run.output / "results" / file_stem(subject.name("tsne", *words))
    files = [path.with_name(f"{path.name}.{suffix}") for suffix in ("npz", "csv")]

    def write() -> list[Path]:
        table = np.column_stack([arrays[name] for name in ("plane", "labels", "sampled")])
        with replacing(files[1]) as hidden:
            np.savetxt(hidden, table, "%.6g,%.6g,%d,%d", header="x,y,label,sample", comments="")
        return files

    return measured._replace(pictures=once(write))
