"""What an attack claims, verified on the images themselves."""

from torch import Tensor

from gmmcli.attacks.attack import Norm, Outcome
from gmmcli.attacks.pixel_model import PixelModel, distances, pixel_logits
from gmmcli.errors import GmmcError
from gmmcli.types import Labels

TOLERANCE = 1e-5  # of float32 sums: an L2 norm over thousands of pixels


def verify(model: PixelModel, pixels: Tensor, labels: Labels, outcome: Outcome, eps: float, norm: Norm) -> None:
    """Hold every found image to the ball and to [0, 1], and to being misclassified in truth; GmmcError otherwise: a bug, not a result."""
    broken = ~outcome.unbroken
    found = outcome.adversarial[broken]
    if not len(found):
        return
    distance = distances(found, pixels[broken], norm)
    if float(distance.max()) > eps * (1 + TOLERANCE) + 1e-6 or float(found.min()) < 0 or float(found.max()) > 1:
        raise GmmcError(
            f"an attack left its ball: {norm} {float(distance.max()):.6g} of {eps:.6g}, pixels {found.min():.6g} to {found.max():.6g}"
        )
    if bool((pixel_logits(model, found).argmax(1) == labels[broken]).any()):
        raise GmmcError("an attack claimed an image that is classified correctly", "try --float64: the model's decision hangs on rounding")
