"""How many images a pass takes at a time: what a GPU has memory for, what the caches of a CPU are quick with."""

import torch
from torch import Tensor, UntypedStorage, nn
from torch.autograd.graph import saved_tensors_hooks

MOST = 500
"""Images at a time: more bring a CPU nothing, and a GPU little that is busy with so many."""
WORKING_SET = 128 * 2**20
"""Bytes of activations that each thread of a CPU works on (docs/performance.md, "Evaluation and attacks")."""
LEAST = 4
"""Images at a time on a CPU: fewer do not repay that large weights are read for them."""
SHARE = 0.5
"""Of a GPU's free memory; the rest is for the gradients of activations and the workspaces of cudnn."""


def batch_size(model: nn.Module, like: Tensor) -> int:
    """Return how many images to give a model at a time, for a pass with or without gradients with respect to the images.

    Both take the same size: what is kept of an image for a backward pass is more than a forward pass holds at once, and a device that is
    busy with the one size is so in either pass.

    Args:
        model: any module on images; frozen and in evaluation mode. It is asked about one image and about two.
        like: a tensor of images as the module takes them, (any, channel, height, width): its shape, type and device count.
    """
    on_gpu = like.device.type == "cuda"
    room = SHARE * _free(like.device) if on_gpu else torch.get_num_threads() * WORKING_SET
    return min(MOST, max(1 if on_gpu else LEAST, int(room / max(bytes_of_an_image(model, like), 1))))


def bytes_of_an_image(model: nn.Module, like: Tensor) -> int:
    """Return what a forward pass keeps of each image for its backward pass; also on the meta device, where nothing is computed.

    Args:
        model: any module on images. It is asked about one image and about two: what does not grow with the images drops out.
        like: as in ``batch_size``.
    """
    one, two = (_kept(model, like.new_zeros(n, *like.shape[1:])) for n in (1, 2))
    return two - one


def _kept(model: nn.Module, images: Tensor) -> int:
    """Return the bytes that a forward pass keeps for the backward pass."""
    kept: dict[int, UntypedStorage] = {}  # which keeps them alive, so that no other storage gets the same id

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[id(storage)] = storage
        return tensor

    with torch.enable_grad(), saved_tensors_hooks(note, lambda tensor: tensor):
        model(images.requires_grad_())
    return sum(storage.nbytes() for storage in kept.values())


def _free(device: torch.device) -> int:
    """Return the bytes that torch can still take on a GPU, with those that it holds without using them."""
    return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
