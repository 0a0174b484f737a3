"""What chains descend: a target turns the labels of a batch into an energy of images.

Staged and noise-injected sampling differ only here; the sampler never knows.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from gmmcli.core import protocols
from gmmcli.core.classifier import Classifier
from gmmcli.core.energy import joint_energy, latent_energy, marginal_energy
from gmmcli.registry import Registry
from gmmcli.types import Energies, EnergyFn, Images, Labels, Latents, Means, NonNegative


def _draw(means: Means, std: float, generator: torch.Generator) -> Latents:
    return means + std * torch.randn(means.shape, generator=generator, device=means.device)


@dataclass(frozen=True, kw_only=True)
class StagedLatent:
    """Draw ``z ~ N(mu_y, std^2 I)`` once, then descend ``1/2 ||phi(x) - z||^2`` (Eq. 8)."""

    needs_means: ClassVar[bool] = True
    uses_labels: ClassVar[bool] = True
    kind: Literal["staged-latent"] = "staged-latent"
    std: NonNegative = 0.001
    """Latent std, gamma in the paper."""

    def __call__(self, model: Classifier, labels: Labels, generator: torch.Generator) -> EnergyFn:
        """Return the energy towards latents drawn here, for one image per label."""
        latents = _draw(model.means.detach()[labels], self.std, generator)

        def energy(images: Images) -> Energies:
            return latent_energy(model.features(images), latents)

        return energy


@dataclass(frozen=True, kw_only=True)
class InjectedLatent:
    """Draw a new ``z_t = mu_y + std delta_t`` at every step (Eqs. 9 and 10).

    Its gradient is that of ``1/2 ||phi - mu_y||^2`` less ``std <delta_t, dphi/dx>``: the gradient-modulated noise of Eq. 10.
    """

    needs_means: ClassVar[bool] = True
    uses_labels: ClassVar[bool] = True
    kind: Literal["injected-latent"] = "injected-latent"
    std: NonNegative = 0.001
    """Latent std, gamma in the paper."""

    def __call__(self, model: Classifier, labels: Labels, generator: torch.Generator) -> EnergyFn:
        """Return an energy that draws its latents anew at each call."""
        means = model.means.detach()[labels]

        def energy(images: Images) -> Energies:
            return latent_energy(model.features(images), _draw(means, self.std, generator))

        return energy


@dataclass(frozen=True, kw_only=True)
class Conditional:
    """Descend ``E(x, y) = -logits[y]`` itself, for any head (IGEBM; Eq. 4 with a Gaussian head)."""

    needs_means: ClassVar[bool] = False
    uses_labels: ClassVar[bool] = True
    kind: Literal["conditional"] = "conditional"

    def __call__(self, model: Classifier, labels: Labels, generator: torch.Generator) -> EnergyFn:
        """Return the joint energy at fixed labels; nothing is drawn."""

        def energy(images: Images) -> Energies:
            return joint_energy(model(images), labels)

        return energy


@dataclass(frozen=True, kw_only=True)
class Marginal:
    """Descend ``E(x) = -logsumexp_y logits[y]``, whatever the label (JEM; Grathwohl et al. 2020)."""

    needs_means: ClassVar[bool] = False
    uses_labels: ClassVar[bool] = False
    kind: Literal["marginal"] = "marginal"

    def __call__(self, model: Classifier, labels: Labels, generator: torch.Generator) -> EnergyFn:
        """Return the marginal energy; the labels and the generator are not looked at."""

        def energy(images: Images) -> Energies:
            return marginal_energy(model(images))

        return energy


TARGETS: Registry[type[protocols.Target]] = Registry(
    "targets", {"staged-latent": StagedLatent, "injected-latent": InjectedLatent, "conditional": Conditional, "marginal": Marginal}
)
