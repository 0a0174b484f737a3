"""Images mended by a model's energy: missing pixels filled in, noise taken away; and one class turned into another."""

from collections.abc import Callable
from dataclasses import replace

import torch

from gmmcli.core.chains import Chains, fresh_samples, visit
from gmmcli.core.classifier import Classifier, frozen
from gmmcli.core.conditioned import Between, Denoising, Inpainting, StartsNear
from gmmcli.core.samplers import changed
from gmmcli.core.starts import GaussianStarts
from gmmcli.core.targets import Conditional, Marginal
from gmmcli.errors import RecipeError
from gmmcli.evaluate.subject import Subject
from gmmcli.named import class_index, class_indices
from gmmcli.rng import stream
from gmmcli.run import Run
from gmmcli.types import Images, Labels, Mask, RawImages, to_model

DENOISING_STEPS, SHORTER = 50, 0.2


def restored(
    subject: Subject, image: RawImages, known: Mask | None, sigma: float | None, label: str | None = None, n: int = 8, seed: int = 1
) -> tuple[Images, Images]:
    """Fill in the pixels that are not known, or take noise away.

    Args:
        subject: whose model, chains and starts are used.
        image: bytes, shape (1, channel, height, width).
        known: see ``known_of``, or None.
        sigma: standard deviation of the noise, pixels in [0, 1], or None.
        label: the image's class by name or index; None where it is unknown.
        n: number of answers where pixels are filled in.
        seed: of their starts and noise.

    Returns:
        What is known of the image, and the answers, in the model range on the model's device.

    Raises:
        RecipeError: there is neither mask nor noise, or both, or there is no such class.
    """
    if (known is None) == (sigma is None):
        raise RecipeError(
            "restore needs mask or denoise, one of them", "give an image that is white where pixels are missing, or denoise 0.1"
        )
    k = None if label is None else class_index(label, subject.card.class_names)
    given = to_model(image.to(subject.device))
    if known is None:
        return given, denoise(subject.run, subject.model, given, subject.gamma2, 2 * (sigma or 0), k)
    known = known.to(subject.device)
    return torch.where(known, given, -1.0), inpaint(subject.run, subject.model, given, known, n, k, seed)


def known_of(mask: RawImages, name: str = "the mask") -> Mask:
    """Where an image is known by a mask in bytes, shape (1, channel, height, width): white is unknown; RecipeError where nothing is."""
    known = to_model(mask).mean(1, keepdim=True) < 0
    if bool(known.all()):
        raise RecipeError(f"{name} is white nowhere", "make it white where pixels are to be filled in")
    return known


def morphed(
    subject: Subject, origin: str, to: str, n: int, frames: int, seed: int = 1, progress: Callable[[int], None] = lambda _: None
) -> tuple[list[Images], int, int]:
    """Lead ``n`` samples of a class to another one, each by name or index.

    Returns:
        The images of each frame, shape (n, channel, height, width), on the cpu; and the two classes.

    Raises:
        RecipeError: there are no such two classes.
    """
    names = subject.card.class_names
    first, last = (class_indices(name, names) for name in (origin, to))
    if len(first) > 1 or len(last) > 1 or first == last:
        raise RecipeError("from and to must be two classes", f"choose two of {', '.join(names[:20])}")
    labels = torch.full((n,), first[0], device=subject.device)
    found = morph(subject.run, subject.model, labels, last[0], frames, seed, progress)
    return [images.cpu() for images in found], first[0], last[0]


def _chains(run: Run, of_class: bool) -> Chains:
    """The run's chains, of the energy of a class or of the marginal one."""
    return replace(run.recipe.chains, target=Conditional() if of_class else Marginal())


def inpaint(run: Run, model: Classifier, image: Images, known: Mask, n: int, label: int | None = None, seed: int = 1) -> Images:
    """Fill in unknown pixels by ``n`` fresh chains that keep the known ones.

    Args:
        run: whose chains and starts are used.
        model: its classifier.
        image: in the model range, shape (1, channel, height, width), on the model's device.
        known: where it is known, shape (1, 1, height, width).
        n: number of answers.
        label: the class; by default the chains descend the marginal energy, and set out from classes at random.
        seed: of starts and noise.

    Returns:
        Images of shape (n, channel, height, width).
    """
    device = image.device
    generator = stream(device, seed, "inpaint")
    labels = torch.randint(len(run.card().class_names), (n,), generator=generator, device=device)
    if label is not None:
        labels = torch.full_like(labels, label)
    chains, starts = _chains(run, label is not None), run.starts(device)
    if isinstance(starts, GaussianStarts):
        starts = StartsNear(starts, image, known)
    target = Inpainting(chains.target, image, known)
    return target.clamp(fresh_samples(model, replace(chains, target=target), starts, labels, generator))


def denoise(run: Run, model: Classifier, image: Images, gamma2: float, sigma: float, label: int | None = None) -> Images:
    """Take Gaussian noise away: descend to an image x that is probable given the noisy one, ``p(x | y) ~ p(x, class) p(y | x)``.

    Chains set out from the mean of the class's Gaussian given the noisy image, where the run's chains start from Gaussians, and move in
    steps a fifth as long as in training, which shrink to nothing.

    Args:
        run: whose chains and starts are used.
        model: its classifier.
        image: noisy, in the model range, shape (1, channel, height, width), on the model's device.
        gamma2: the model's variance, which relates energies to probabilities.
        sigma: standard deviation of the noise, in the model range.
        label: the class; by default what the model takes the image for, the second time without most of the noise.
    """
    chains, starts, restored = _chains(run, of_class=True), run.starts(image.device), image.clamp(-1, 1)
    everywhere = torch.ones(1, 1, *image.shape[2:], dtype=torch.bool, device=image.device)
    for _ in range(2):
        with frozen(model), torch.no_grad():
            k = int(model(restored).argmax()) if label is None else label
        if isinstance(starts, GaussianStarts):
            restored = StartsNear(starts, image, everywhere, sigma).mean(k)
    target, labels = Denoising(chains.target, image, gamma2, sigma), torch.tensor([k], device=image.device)
    generator = stream(image.device, 1, "denoise")
    for i in range(DENOISING_STEPS):
        step_size = SHORTER * chains.sampler.step_size * (1 - i / DENOISING_STEPS)
        sampler = changed(chains.sampler, n_steps=1, step_size=step_size, noise_std=0.0)
        restored, _ = visit(model, target, sampler, labels, restored, generator)
    return restored


def morph(
    run: Run, model: Classifier, labels: Labels, to: int, frames: int, seed: int = 1, progress: Callable[[int], None] = lambda _: None
) -> list[Images]:
    """Lead samples of a class to another one: at every frame chains descend an energy that has less of the first and more of the other.

    Args:
        run: whose chains and starts are used.
        model: its classifier.
        labels: the class of each sample, on the model's device.
        to: the other class.
        frames: of which the first has samples of their own classes.
        seed: of starts and noise.
        progress: called with the number of frames done.

    Returns:
        The images of each frame, shape (batch, channel, height, width).
    """
    chains, generator = _chains(run, of_class=True), stream(labels.device, seed, "morph")
    found = [fresh_samples(model, chains, run.starts(labels.device), labels, generator)]
    progress(1)
    for i in range(1, frames):
        target, images = Between(chains.target, to, i / (frames - 1)), found[-1]
        for _ in range(max(1, chains.lifetime // chains.sampler.n_steps // frames)):
            images, _ = visit(model, target, chains.sampler, labels, images, generator)
        found.append(images)
        progress(i + 1)
    return found
