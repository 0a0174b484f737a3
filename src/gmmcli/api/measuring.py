"""The measurements of a run, each as its command makes it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gmmcli import run as runs
from gmmcli.api.arguments import Origin, Result, SplitName, checked
from gmmcli.errors import RecipeError
from gmmcli.named import Device, radii, select_device
from gmmcli.progress import say
from gmmcli.types import Count, Natural, NonNegative, Positive, Share

if TYPE_CHECKING:
    from gmmcli.evaluate.measured import Measured
    from gmmcli.evaluate.subject import Subject

FEW = 500
"""Images that the audit takes by default, as its command does: each image takes thousands of forward passes."""
UNUSED = {"fgsm": ("steps", "step_size", "restarts"), "apgd": ("step_size",), "square": ("loss", "step_size")}
"""Settings that an attack does not have."""


class Measuring(runs.Run):
    """A run and its measurements. A result is saved in the run with its figure, as by the command, and returned as by its ``--json``."""

    @checked
    def evaluate(
        self, against: Sequence[str] | None = None, *, n: Count | None = None, seed: int = 1, best: bool = False, device: Device = "auto"
    ) -> Result:
        """Measure everything in one pass over the test images: ``gmmc eval all``. Values are by evaluation: ``["accuracy"]["nll"]``."""
        from gmmcli.evaluate.whole import whole

        return _answer(whole(self._subject(n=n, seed=seed, best=best, device=device), against)[0])

    @checked
    def accuracy(
        self,
        *,
        refine: Natural = 0,
        refine_chains: Count = 1,
        refine_noise: NonNegative | None = None,
        data: str | None = None,
        split: SplitName = "test",
        n: Count | None = None,
        seed: int = 1,
        best: bool = False,
        device: Device = "auto",
    ) -> Result:
        """Measure accuracy, NLL and Brier score: ``gmmc eval accuracy``."""
        from gmmcli.evaluate.classification import accuracy

        subject = self._subject(data=data, split=split, n=n, seed=seed, best=best, device=device)
        return _answer(accuracy(_refined(subject, refine, refine_chains, refine_noise)))

    @checked
    def calibrate(
        self,
        *,
        data: str | None = None,
        split: SplitName = "test",
        n: Count | None = None,
        seed: int = 1,
        best: bool = False,
        device: Device = "auto",
    ) -> Result:
        """Measure calibration at three scales: ``gmmc eval calibrate``."""
        from gmmcli.evaluate.classification import calibrate

        return _answer(calibrate(self._subject(data=data, split=split, n=n, seed=seed, best=best, device=device)))

    @checked
    def ood(
        self,
        against: Sequence[str] | None = None,
        scores: Sequence[str] | None = None,
        *,
        n: Count | None = None,
        seed: int = 1,
        best: bool = False,
        device: Device = "auto",
    ) -> Result:
        """Measure how well scores tell the test images from others: ``gmmc eval ood``.

        Args:
            against: sets to compare with, as ``--against`` names them; by default interp, noise and the usual datasets on disk.
            scores: names of scores; by default all that need no pass over the training images.
            n: see the class.
            seed: see the class.
            best: see the class.
            device: see the class.
        """
        from gmmcli.evaluate.detection import ood

        return _answer(ood(self._subject(n=n, seed=seed, best=best, device=device), against, scores))

    @checked
    def generate(
        self,
        *,
        origin: Origin = "buffer",
        n: Count | None = None,
        features: str = "best",
        weights: Path | None = None,
        judge: str | None = None,
        samples: Path | None = None,
        reference: Literal["train", "test", "train+test"] = "train",
        stats: Path | None = None,
        save_stats: Path | None = None,
        top_share: Share = 1.0,
        seed: int = 1,
        best: bool = False,
        device: Device = "auto",
    ) -> Result:
        """Measure samples against real images: ``gmmc eval generate``, whose options are the arguments.

        Args:
            origin: fresh chains from noise, or the replay buffer as training left it.
            n: samples in all; 10,000 of the buffer and 1,000 fresh ones by default.
            features: where to compare: inception, efficientnet-lite0, pixels, the best of these that is there, or a run's features.
            weights: the file of Inception's weights.
            judge: a run that names the samples' classes; an SVC on pixels by default.
            samples: measure this file of ``gmmc sample`` and draw none.
            reference: the real images to compare with.
            stats: statistics that replace the reference's, a file of pytorch-fid.
            save_stats: where to write the reference's statistics.
            top_share: keep the most confident share of each predicted class.
            seed: see the class.
            best: see the class.
            device: see the class.

        Raises:
            MissingPartError: the weights that ``features`` needs are not there.
        """
        from gmmcli.evaluate.generation import generate
        from gmmcli.evaluate.settings import settings

        subject = self._subject(seed=seed, best=best, device=device)
        more: dict[str, Any] = {
            "n": n,
            "samples": samples,
            "reference": reference,
            "stats": stats,
            "save_stats": save_stats,
            "top_share": top_share,
        }
        return _answer(generate(subject, settings(subject, features, judge, origin, weights, self.path.parent, **more)))

    @checked
    def attack(
        self,
        kind: str = "pgd",
        eps: float | str | Sequence[float | str] | None = None,
        *,
        loss: str | None = None,
        norm: Literal["linf", "l2"] | None = None,
        steps: Count | None = None,
        step_size: Positive | None = None,
        restarts: Count | None = None,
        scale: Positive = 1.0,
        float64: bool = False,
        refine: Natural = 0,
        refine_chains: Count = 1,
        refine_noise: NonNegative | None = None,
        eot: Count = 10,
        save: Path | None = None,
        data: str | None = None,
        split: SplitName = "test",
        n: Count | None = None,
        seed: int = 1,
        best: bool = False,
        device: Device = "auto",
    ) -> Result:
        """Measure the accuracy under an attack within a ball: ``gmmc attack fgsm|pgd|apgd|square``. What is left out is the attack's own.

        Args:
            kind: the attack, those of installed packages included.
            eps: radius or radii in pixels of [0, 1]: ``8 / 255`` or ``"8/255"``, which is the default; in l2 that is 0.5.
            loss: what is maximised.
            norm: of the perturbation.
            steps: gradient steps; of Square the queries.
            step_size: a step, as a share of eps.
            restarts: random starts; an image counts as broken if one breaks it.
            scale: attack the logits divided by this.
            float64: compute in float64.
            refine: see the class.
            refine_chains: see the class.
            refine_noise: see the class.
            eot: with ``refine``: draws of its noise that a gradient is the mean of.
            save: where to write the adversarial images, an .npz.
            data: see the class.
            split: see the class.
            n: see the class.
            seed: see the class.
            best: see the class.
            device: see the class.
        """
        from gmmcli.attacks.algorithms import configured
        from gmmcli.evaluate.robustness import robust_accuracy

        settings = {"loss": loss, "norm": norm, "steps": steps, "step_size": step_size, "restarts": restarts}
        given = {name: value for name, value in settings.items() if value is not None}
        if unused := [name for name in UNUSED.get(kind, ()) if name in given]:
            raise RecipeError(f"attack: {kind} has no {unused[0]}", "leave it out")
        attack = configured(kind, seed=seed, **given)
        each = [] if eps is None else [eps] if isinstance(eps, float | str) else eps
        within = radii([str(one) for one in each], attack.norm)
        subject = self._subject(data=data, split=split, n=n, seed=seed, best=best, device=device)
        subject = _refined(subject, refine, refine_chains, refine_noise)
        return _answer(robust_accuracy(subject, attack, within, float64=float64, scale=scale, eot=eot, save_to=save))

    @checked
    def carlini(
        self,
        aim: Literal["untargeted", "next", "least-likely"] = "untargeted",
        *,
        steps: Count = 100,
        searches: Count = 9,
        learning_rate: Positive = 0.01,
        float64: bool = False,
        save: Path | None = None,
        data: str | None = None,
        split: SplitName = "test",
        n: Count = FEW,
        seed: int = 1,
        best: bool = False,
        device: Device = "auto",
    ) -> Result:
        """Find the smallest L2 change that is misclassified: ``gmmc attack cw``.

        Args:
            aim: any wrong class, the next one, or the least likely one.
            steps: Adam's, for each c.
            searches: values of c, by binary search for each image.
            learning_rate: Adam's.
            float64: compute in float64.
            save: where to write the adversarial images, an .npz.
            data: see the class.
            split: see the class.
            n: see the class.
            seed: see the class.
            best: see the class.
            device: see the class.
        """
        from gmmcli.attacks.carlini import CarliniWagner
        from gmmcli.evaluate.carlini import carlini

        subject = self._subject(data=data, split=split, n=n, seed=seed, best=best, device=device)
        return _answer(carlini(subject, CarliniWagner(aim, steps, searches, learning_rate), float64=float64, save_to=save))

    @checked
    def audit(
        self,
        transfer: str | None = None,
        *,
        refine: Natural = 0,
        refine_chains: Count = 1,
        refine_noise: NonNegative | None = None,
        eot: Count = 10,
        data: str | None = None,
        split: SplitName = "test",
        n: Count = FEW,
        seed: int = 1,
        best: bool = False,
        device: Device = "auto",
    ) -> Result:
        """Measure the worst case of each image over every attack: ``gmmc attack audit``.

        ``transfer`` names a run to attack from; ``eot`` is as in ``attack``.
        """
        from gmmcli.evaluate.audit import audit
        from gmmcli.evaluate.subject import Subject

        asked: dict[str, Any] = {"data": data, "split": split, "n": n, "seed": seed, "best": best}
        subject = _refined(self._subject(**asked, device=device), refine, refine_chains, refine_noise)
        other = Subject.open(transfer, self.path.parent, device=subject.device, **asked) if transfer else None
        return _answer(audit(subject, transfer=other, eot=eot))

    def _subject(self, device: Device, **asked: Any) -> "Subject":
        from gmmcli.evaluate.subject import Subject

        return Subject.open(self, device=select_device(device), **asked)


def _refined(subject: "Subject", steps: int, chains: int, noise: float | None) -> "Subject":
    if not steps and (chains > 1 or noise is not None):
        raise RecipeError("refine_chains and refine_noise need refine", "give refine=10, or leave them out")
    return subject.refined(steps, chains, noise)


def _answer(measured: "Measured") -> Result:
    for warning in measured.warnings:
        say(warning)
    return measured.result
