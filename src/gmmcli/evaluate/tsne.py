"""t-SNE of runs side by side (Fig. 1): embedded, measured, saved and drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gmmcli.evaluate import plots
from gmmcli.evaluate.measured import Measured, own_outputs
from gmmcli.evaluate.samples import Draw
from gmmcli.evaluate.subject import Subject
from gmmcli.metrics.embedding import check_enough, embed, embedding_protocol, embedding_values
from gmmcli.metrics.features.spaces import Space
from gmmcli.metrics.outputs import outputs
from gmmcli.storage import replacing
from gmmcli.types import to_bytes


def tsne(
    subjects: Sequence[Subject],
    *,
    space: Space | None = None,
    samples: Draw | None = None,
    n_samples: int = 0,
    seed: int = 1,
    out: Path | None = None,
    quiet: bool = True,
) -> list[Measured]:
    """Embed the features of each subject's images, and of samples of its run where asked for; one figure for all.

    Args:
        subjects: of the same classes.
        space: whose features, each run's own by default.
        samples: how to draw samples.
        n_samples: how many, as many of each class.
        seed: of PCA and t-SNE.
        out: the figure; in the first run's figures/ by default.
        quiet: no progress.

    Returns:
        A result for each subject, with its coordinates saved as .npz and .csv; the pictures with the first.
    """
    planes: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    measured = []
    for subject in subjects:
        check_enough(len(subject.images.labels))
        labels, images = subject.images.labels, subject.images.images
        features = space.embed(images) if space else own_outputs(subject, quiet).features
        sampled = torch.zeros(len(labels), dtype=torch.bool)
        protocol = embedding_protocol(seed) | {"features": space.about if space else "the run's own"}
        if samples and n_samples:
            n_classes = len(subject.card.class_names)
            drawn = samples(subject.run, range(n_classes), max(1, n_samples // n_classes), subject.best, subject.device)
            raw = to_bytes(drawn.images)
            images = torch.cat([images, raw])
            features = torch.cat([features, space.embed(raw) if space else outputs(subject.model, raw).features])
            labels, sampled = torch.cat([labels, drawn.labels]), torch.cat([sampled, torch.ones(len(drawn.labels), dtype=torch.bool)])
            protocol["samples"] = drawn.protocol | {"n": len(drawn.labels)}
        plane = embed(features, seed)
        real = ~sampled
        values = embedding_values(features[real], plane[real.numpy()], labels[real])
        result = subject.result("tsne", protocol, values)
        arrays = {"plane": plane, "labels": labels.numpy(), "sampled": sampled.numpy(), "images": images.numpy()}
        path = subject.run.save_result(result, subject.name("tsne", *[space.name] if space else ()), **arrays)
        table = np.column_stack([plane, labels.numpy(), sampled.numpy()])
        with replacing(path.with_suffix(".csv")) as hidden:
            np.savetxt(hidden, table, "%.6g,%.6g,%d,%d", header="x,y,label,sample", comments="")
        planes[_title(subject, values)] = (plane, labels.numpy(), sampled.numpy())
        measured.append(Measured(result, [path.with_suffix(".npz"), path.with_suffix(".csv")]))
    first = subjects[0]
    pictures = plots.save(
        plots.scatter(planes, first.card.class_names), out or first.run.path / "figures" / f"{measured[0].pictures[0].stem}.png"
    )
    return [measured[0]._replace(pictures=[*pictures, *measured[0].pictures]), *measured[1:]]


def _title(subject: Subject, values: dict[str, Any]) -> str:
    return f"{subject.run.id}\nstep {subject.step:,}, k-NN accuracy {values['knn_accuracy']:.1%}"
