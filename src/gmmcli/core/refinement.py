"""Refined classification: chains from an image down its energy first, then the class (JEM's defence; Grathwohl et al. 2020, Sec. 5.4)."""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from gmmcli.core.classifier import Classifier
from gmmcli.core.energy import marginal_energy
from gmmcli.core.samplers import Descent
from gmmcli.rng import stream
from gmmcli.types import Features, Images


@dataclass(frozen=True)
class Refinement:
    """How images are refined. The noise is a function of seed and draw, and the same for all images: a class is one of the image alone."""

    steps: int
    """Updates of each chain; with 0 images stay as they are."""
    sampler: Descent
    """Its step and its noise; the number of steps is that above."""
    chains: int = 1
    """Of each image, with a noise of their own; the features where they arrive are averaged."""
    seed: int = 1
    draw: tuple[int | str, ...] = ()
    """What tells other noise from that of the defence itself: who attacks draws anew."""

    @property
    def random(self) -> bool:
        """Whether there is any noise."""
        return bool(self.steps and self.sampler.noise_std)

    @property
    def name(self) -> str:
        """In the name of a result; the seed is told there by itself."""
        return f"refine {self.steps} chains {self.chains} noise {self.sampler.noise_std:g}"

    def noise(self, images: Images) -> Tensor:
        """Return what is added at each step, shape (step, chain, 1, channel, height, width)."""
        shape = (self.steps, self.chains, 1, *images.shape[1:])
        if not self.random:
            return images.new_zeros(1).expand(shape)
        return self.sampler.noise_std * torch.randn(shape, generator=stream("cpu", self.seed, "refine", *self.draw)).to(images)

    def __str__(self) -> str:
        how = {key: value for key, value in asdict(self.sampler).items() if key != "n_steps"}
        words = ", ".join([how.pop("kind"), *(f"{key} {value:g}" for key, value in how.items())])
        n_steps, n_chains = (f"{n} {unit}{'s' * (n > 1)}" for n, unit in ((self.steps, "step"), (self.chains, "chain")))
        return f"{n_steps} down E(x) ({words}), mean of {n_chains}, seed {self.seed}"


class Refined(Classifier):
    """A classifier whose features are the mean of those where chains arrive that set out from the image.

    Of a head that is linear in the features, and a Gaussian one is but for what all classes share, the prediction is that of the mean
    logits, as in JEM's code.

    The gradient with respect to the image is that of the whole: of every step, and of the energy's gradient in it, which takes second
    derivatives. Of clamped pixels it is 0. With ``straight_through`` chains count as the identity on the way back (BPDA, Athalye et al.
    2018), which is also what is left of the gradient when that of the energy is taken for a constant.
    """

    def __init__(self, plain: Classifier, refinement: Refinement, straight_through: bool = False) -> None:
        super().__init__(plain.backbone, plain.head)
        self.plain = plain
        self.gamma2 = plain.gamma2
        self.refinement = refinement
        self.straight_through = straight_through

    def features(self, images: Images) -> Features:
        """Return the mean features of the refined images, shape (batch, feature)."""
        if not self.refinement.steps:
            return self.plain.features(images)
        refined = self.refined(images).flatten(0, 1)
        return self.plain.features(refined).view(self.refinement.chains, len(images), -1).mean(0)

    def refined(self, images: Images) -> Tensor:
        """Return where the chains arrive, shape (chain, batch, channel, height, width)."""
        through = torch.is_grad_enabled() and images.requires_grad and not self.straight_through
        starts = images.repeat(self.refinement.chains, 1, 1, 1)
        x = starts if through else starts.detach()
        with torch.enable_grad():
            for noise in self.refinement.noise(images):
                x = x if through else x.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(marginal_energy(self.plain(x)).sum(), x, create_graph=through)
                x = x - self.refinement.sampler.step(gradient) + noise.expand(-1, len(images), -1, -1, -1).flatten(0, 1)
                x = x.clamp(-1, 1)
        if not through:
            x = x.detach() + (starts - starts.detach())
        return x.view(self.refinement.chains, *images.shape)
