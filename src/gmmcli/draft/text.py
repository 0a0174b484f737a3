"""A recipe's tables as TOML with a comment for each, in plain words."""

from typing import Any

import tomli_w

from gmmcli.draft.sizes import Document

SECTIONS = {
    "data": "Which images, and what is done to them each time they are shown.",
    "init": "The weights to start from: those of another run, whose [model] this recipe has.",
    "model": "The network. More depth (6 n + 4) or width learns more and takes longer.",
    "chains": "How images are made: chains start from their class's typical colours, and move to where the model finds images likely.",
    "optim": "How fast it learns: the rate rises in the first steps, and falls until the last.",
    "guard": "If the loss runs away: return to the last good checkpoint, and continue at half the learning rate.",
    "log": "How often, in steps: a line of figures, a picture of the chains, a validation, a checkpoint; the newest `keep` of these stay.",
}
STAGES = {
    "center-regression": "learn to tell the classes apart. Too few epochs cost accuracy.",
    "contrastive-divergence": "learn to generate: real images become more likely than those that the chains make.",
}
KEYS = {
    "seed": "the same seed gives the same training",
    "source": "`validation`: the share held out to choose the best checkpoint, and again to test, where nothing is set apart",
    "batch_size": "images in a step",
    "noise_std": "a little noise, on a scale from -1 (black) to 1 (white)",
    "crop_padding": "moves an image by up to so many pixels",
    "flip": "mirrors every other image; false where left and right mean something",
    "buffer_size": "chains that are kept, as many of each class",
    "dtype": "kept as bytes, which take a quarter of the memory",
    "reinit_prob": "how often a chain starts anew",
    "fresh_steps": "steps of a chain that `gmmc sample` draws: more make images crisper, and more alike",
    "target": "how far from their class's mean chains stay: further away they are more varied",
    "ramp_epochs": "how long the chains' weight takes to rise",
    "freeze_norm": "what the norm has learnt stays as it is",
    "validate_samples": "images of each class, drawn at a validation in the stage that generates",
    "best": "the best checkpoint is the one whose samples are most like the validation images (`gmmc sample --best`)",
}


def commented(document: Document, head: list[str]) -> str:
    """Return a recipe as TOML; ``head`` are the comment lines at its top, without their marks."""
    plain = {key: value for key, value in document.items() if key not in SECTIONS and key != "stages"}
    parts = ["\n".join([*(f"# {line}" for line in head), _lines(plain)])]
    for name, about in SECTIONS.items():
        if name == "guard":
            parts += [_stage(stage, i, len(document["stages"])) for i, stage in enumerate(document["stages"])]
        if name in document:
            parts.append(f"# {about}\n[{name}]\n{_lines(document[name])}")
    return "\n\n".join(parts) + "\n"


def _stage(stage: Document, i: int, n: int) -> str:
    about = STAGES[stage["objective"]["kind"]]
    return f"# Stage {i + 1} of {n}: {about}\n[[stages]]\n{_lines(stage)}"


def _lines(table: Document) -> str:
    return "\n".join(f"{key} = {_inline(value)}{f'  # {KEYS[key]}' if key in KEYS else ''}" for key, value in table.items())


def _inline(value: Any) -> str:
    """A value as TOML writes it on one line."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_inline(item)}' for key, item in value.items())} }}"
    return tomli_w.dumps({"value": value}).removeprefix("value = ").strip()
