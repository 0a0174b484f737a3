"""Carlini and Wagner's L2 attack (2017), with its binary search over c: the smallest change that is misclassified.

Our own, for reasons that docs/decisions/0005 gives: torchattacks' has no search, is blind to negative logits (a Gaussian head has no
others), cannot move pixels that are exactly 0 or 1, and gives up for the whole batch when one sum stops falling.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gmmcli.attacks.losses import logit_of, others
from gmmcli.attacks.pixel_model import PixelModel, pixel_logits
from gmmcli.types import Labels

Aim = Literal["untargeted", "next", "least-likely"]
FIRST_C, MOST_C = 1e-2, 1e10


@dataclass(frozen=True)
class CarliniWagner:
    """Minimise ``||x' - x||^2 + c max(gap, 0)`` within [0, 1], the gap being what keeps x' from its aim, for each image its own c.

    The box is kept by projection, the paper's second way, and not by tanh: from a pixel of exactly 0 or 1, and most of a digit's
    are, tanh lets nothing move within hundreds of steps.
    """

    aim: Aim = "untargeted"
    """Any wrong class, the next one, or the least likely one."""
    steps: int = 100
    """Adam's, for each c."""
    searches: int = 9
    """Values of c: ten times more after a failure until one succeeds, then bisection."""
    learning_rate: float = 0.01

    def targets(self, model: PixelModel, pixels: Tensor, labels: Labels) -> Labels:
        """Return the class each image shall be taken for; for the untargeted attack the one it must not."""
        if self.aim == "untargeted":
            return labels
        logits = pixel_logits(model, pixels)
        return (labels + 1) % logits.shape[1] if self.aim == "next" else others(-logits, labels).argmax(1)

    def __call__(self, model: PixelModel, pixels: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
        """Attack images in [0, 1] that are classified correctly.

        Returns:
            Whether each attack succeeded, judged anew on the returned images, and the images; the clean one where it failed.
        """
        targets = self.targets(model, pixels, labels)
        split = [torch.split(tensor, model.at_a_time(pixels)) for tensor in (pixels, targets)]
        found = torch.cat([self._on_a_chunk(model, x, t) for x, t in zip(*split, strict=True)]) if len(pixels) else pixels
        predicted = pixel_logits(model, found).argmax(1) if len(pixels) else labels
        return (predicted != labels) if self.aim == "untargeted" else (predicted == targets), found

    def _gap(self, logits: Tensor, targets: Labels) -> Tensor:
        """What is left to the aim: negative once it is reached."""
        rest = logit_of(logits, targets) - others(logits, targets).amax(1)
        return rest if self.aim == "untargeted" else -rest

    def _on_a_chunk(self, model: PixelModel, pixels: Tensor, targets: Labels) -> Tensor:
        n = len(pixels)
        best, best_norm = pixels.clone(), pixels.new_full((n,), float("inf"))
        low, high, c = pixels.new_zeros(n), pixels.new_full((n,), MOST_C), pixels.new_full((n,), FIRST_C)
        for _ in range(self.searches):
            x = pixels.clone().requires_grad_()
            adam = torch.optim.Adam([x], self.learning_rate)
            reached = torch.zeros(n, dtype=torch.bool, device=pixels.device)
            for step in range(self.steps + 1):  # the last look is at where the last step led
                norm = (x - pixels).square().flatten(1).sum(1)
                gap = self._gap(model(x), targets)
                deceived = gap.detach() < 0
                reached |= deceived
                better = deceived & (norm.detach() < best_norm)
                best_norm = torch.where(better, norm.detach(), best_norm)
                best = torch.where(better[:, None, None, None], x.detach(), best)
                (x.grad,) = torch.autograd.grad((norm + c * gap.clamp(min=0)).sum(), x)
                adam.param_groups[0]["lr"] = self.learning_rate * (1 - step / (self.steps + 1))  # to settle, not to circle
                adam.step()
                x.data.clamp_(0, 1)
            high, low = torch.where(reached, c, high), torch.where(reached, low, c)
            c = torch.where(high < MOST_C, (low + high) / 2, 10 * c)
        return best
