"""What users name: a device, classes, radii."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from gmmcli.errors import RecipeError, quoted
from gmmcli.hints import nearest

if TYPE_CHECKING:
    import torch

Device = Literal["auto", "cpu", "cuda"]


def select_device(name: Device) -> "torch.device":
    """The device that a name means; RecipeError where there is none such."""
    from gmmcli.core.compute import Compute

    try:
        return Compute(device=name).select()
    except ValueError as error:
        raise RecipeError(str(error), "use --device auto") from error


def class_indices(label: str, names: Sequence[str]) -> list[int]:
    """The classes meant by a name, an index or ``all``; RecipeError for another."""
    if label == "all":
        return list(range(len(names)))
    if label in names:
        return [names.index(label)]
    if label.isascii() and label.isdecimal() and len(label) < 10 and int(label) < len(names):
        return [int(label)]
    near = nearest(label, names)
    hint = f"did you mean {near}?" if near else f"give an index from 0 to {len(names) - 1}, all, or one of: {', '.join(names[:20])}"
    raise RecipeError(f"no class {quoted(label)} among the {len(names)} of this run", hint)


def class_index(label: str, names: Sequence[str]) -> int:
    """The class meant by a name or an index, as ``class_indices``; RecipeError for ``all``, too."""
    found = class_indices(label, names)
    if len(found) > 1:
        raise RecipeError("an image has one class, not all", "leave it out where it is unknown")
    return found[0]


def radii(texts: Sequence[str] | None, norm: str) -> list[float]:
    """Read radii of attacks, each a number, a fraction or several with commas between; RecipeError for what is none."""
    found = []
    for text in ",".join(texts or ["8/255" if norm == "linf" else "0.5"]).split(","):
        numerator, slash, denominator = text.strip().partition("/")
        try:
            eps = float(numerator) / (float(denominator) if slash else 1.0)
        except (ValueError, ZeroDivisionError) as error:
            raise RecipeError(f"eps {text!r} is no number", "write 8/255, 0.031 or 4/255,8/255") from error
        if not 0 <= eps < float("inf"):
            raise RecipeError(f"eps {text} is not a radius", "give 0 or more")
        if norm == "linf" and eps > 1:
            raise RecipeError(
                f"eps {text} is more than the whole range of a pixel, which is 1",
                f"did you mean {text}/255?" if not slash else "give at most 255/255",
            )
        found.append(eps)
    return found
