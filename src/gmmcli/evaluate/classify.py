"""What a model says of single pictures: their class, how probable it is, and whether it knows pictures like them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gmmcli.core.energy import class_log_probs, log_density
from gmmcli.errors import DataError
from gmmcli.evaluate.subject import Subject
from gmmcli.metrics.outputs import outputs
from gmmcli.types import Logits, RawImages

KNOWN = 0.95
"""Proportion of the validation images that are known: the true positive rate that sets the threshold."""
LEAST = 20
"""Validation images, of which one is as many as the threshold leaves below it."""


@dataclass(frozen=True)
class Verdict:
    """What a model says of one picture."""

    label: str
    """The most probable class."""
    probability: float
    """p(y|x) of it, at the temperature that was fitted on the validation images (Guo et al. 2017)."""
    log_density: float
    """log p(x) up to a constant."""
    known: bool
    """Whether log p(x) is as high as that of ``KNOWN`` of the validation images."""


@dataclass(frozen=True)
class Judgement:
    """A model with what its validation images teach: the temperature of its probabilities, and the threshold of log p(x).

    Raises:
        DataError: when it is first asked, where there are too few validation images.
    """

    subject: Subject

    @cached_property
    def temperature(self) -> float:
        """Of the probabilities; gamma^2 where every validation image is classified correctly, so that no temperature can be fitted."""
        return self.subject.temperature or self.subject.gamma2

    @cached_property
    def threshold(self) -> float:
        """The lowest log p(x) of a known picture: at least ``KNOWN`` of the validation images reach it."""
        subject = self.subject
        if (n := len(subject.validation)) < LEAST:
            raise DataError(
                f"run {subject.run.id} has {n} validation images, and at least {LEAST} are needed to tell known pictures from unknown",
                "train with more images, or set data.source.validation larger",
            )
        return float(log_density(subject.held_out.logits, subject.gamma2).sort().values[int((1 - KNOWN) * n)])

    def __call__(self, images: RawImages) -> list[Verdict]:
        """Judge byte images, shape (n, channel, height, width), of the size that the model takes."""
        return self.of(outputs(self.subject.model, images).logits)

    def of(self, logits: Logits) -> list[Verdict]:
        """Judge images by their logits, on the cpu."""
        subject, names = self.subject, self.subject.card.class_names
        probability, label = class_log_probs(logits.double(), self.temperature).exp().max(1)
        density = log_density(logits, subject.gamma2)
        found = zip(label.tolist(), probability.tolist(), density.tolist(), (density >= self.threshold).tolist(), strict=True)
        return [Verdict(names[k], p, score, known) for k, p, score, known in found]

    @property
    def protocol(self) -> dict[str, Any]:
        """How verdicts come about."""
        subject = self.subject
        return {
            "temperature": self.temperature,
            "temperature_fitted": subject.temperature is not None,
            "score": "log p(x)",
            "threshold": self.threshold,
            "true_positive_rate": KNOWN,
            "gamma2": subject.gamma2,
            "n_validation": len(subject.validation),
        }
