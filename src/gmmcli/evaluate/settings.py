"""The settings of an evaluation of samples, from the names that users give to spaces, judges and runs."""

from pathlib import Path
from typing import Any

from gmmcli.errors import RecipeError
from gmmcli.evaluate.generation import Generation
from gmmcli.evaluate.samples import Draw, Origin
from gmmcli.evaluate.subject import Subject
from gmmcli.metrics.features.spaces import named_space, run_space
from gmmcli.metrics.judge import Judge, ModelJudge, PixelJudge


def settings(
    subject: Subject,
    features: str = "best",
    judge: str | None = None,
    origin: Origin = "buffer",
    weights: Path | None = None,
    runs_dir: Path | None = None,
    **more: Any,
) -> Generation:
    """Find what is named; what is missing is an error here, before anything is drawn.

    Args:
        subject: whose samples are measured.
        features: where images are compared: a space's name, ``best``, or a run, whose features are used.
        judge: a run that names the samples' classes; an SVC on pixels by default.
        origin: where the samples come from.
        weights: the file of Inception's weights.
        runs_dir: where the other runs are.
        more: fields of ``Generation``.

    Raises:
        MissingPartError: the space that was asked for needs weights that are not there.
        RecipeError: a run knows other images or classes than the subject's.
    """

    def other(name: str) -> Subject:
        found = Subject.open(name, runs_dir, device=subject.device)
        if found.card.image_shape != subject.card.image_shape or found.card.class_names != subject.card.class_names:
            raise RecipeError(f"run {found.run.id} knows other images or classes than {subject.run.id}", "use a run on the same data")
        return found

    space = named_space(features, weights, subject.device)
    if space is None:
        fellow = other(features)
        space = run_space(fellow.run.id, fellow.model)
    if judge:
        found = other(judge)
        named: Judge = ModelJudge(found.model, f"run {found.run.id}, step {found.step}", found.run.id)
    else:
        named = PixelJudge(subject.dataset.train, subject.seed)
    return Generation(space, named, Draw(origin, seed=subject.seed), **more)
