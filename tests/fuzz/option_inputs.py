"""Options of every verb with numbers, names and paths that they should refuse or take as they are.

No path leads to a file or device of this machine that a command could replace: whoever runs this may be root.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from random import Random

from run_inputs import write_run
from texts import NUMBERS, word, write

PATHS = (
    "taken", "taken.png", "file.txt", "file.txt/x.png", "loop", "loop/x.png", "link.png", "gone.png", "pipe", "pipe.png", "/proc/x.png",
    "x.png", "x.txt", "", ".", "x", "x.PNG", "a/b/c/x.png", "x" * 300 + ".png", "a/" * 2000 + "x.png", "x.npz", "-.png", "x.svg",
    "x.pdf", "shut/x.png",
)  # fmt: skip


def option(rng: Random, work: Path) -> list[str]:
    """A verb with an option."""
    write_run(work)
    (work / "taken").mkdir()
    write(work / "file.txt", "x")
    (work / "loop").symlink_to("loop")
    (work / "link.png").symlink_to("file.txt")
    (work / "gone.png").symlink_to("nowhere.png")
    (work / "shut").mkdir(0o555)
    os.mkfifo(work / "pipe")
    verbs = rng.choice((_of_samples, _of_evaluations, _of_evaluations, _of_attacks, _of_others))
    return [*rng.choice(verbs(rng, rng.choice(NUMBERS), word(rng))), *rng.choice(([], [], ["--json"], ["--quiet"]))]


def _out(rng: Random, text: str) -> list[str]:
    return ["--out", rng.choice((*PATHS, f"{text.replace('/', '')}.png"))]


def _of_samples(rng: Random, number: str, text: str) -> Sequence[list[str]]:
    sample = ["sample", "--n", "10", "--steps", "1"]
    return (
        [*sample, *_out(rng, text)],
        [*sample, *_out(rng, text), "--format", rng.choice(("grid", "png", "npz", text))],
        ["sample", "--steps", "1", "--n", rng.choice((number, "10")), rng.choice(("--seed", "--noise", "--step-size")), number],
        ["sample", "--steps", "1", "--per-class", number],
        ["sample", "--steps", number, "--n", "10"],
        ["sample", "--steps", "1", "--class", rng.choice((text, number, "²", "٣", "3")), "--n", "2"],
        ["sample", "--steps", "1", "--class", "1", "--class", "2", "--n", "2"],
    )


def _of_evaluations(rng: Random, number: str, text: str) -> Sequence[list[str]]:
    source = rng.choice((text, f"npz:{text}", f"folder:{text}", "npz:/dev/zero", "mnist", "digits:x", "interp"))
    return (
        ["eval", "accuracy", "--n", rng.choice((number, "20")), *_out(rng, text)],
        ["eval", "accuracy", "--n", "20", "--seed", number],
        ["eval", "accuracy", "--n", "20", "--data", source],
        ["eval", "ood", "--n", "20", "--against", source, *rng.choice(([], ["--score", text]))],
        ["eval", "calibrate", "--n", "20", *_out(rng, text)],
        ["eval", "generate", "--n", rng.choice((number, "20")), "--features", rng.choice(("pixels", text)), "--from", "buffer"],
        ["tsne", "--n", rng.choice((number, "20")), *_out(rng, text)],
    )


def _of_attacks(rng: Random, number: str, text: str) -> Sequence[list[str]]:
    radius = rng.choice((number, text, f"{number}/255", "8/0", "8/255,", ",", "1/255," * 500))
    return (
        ["attack", "fgsm", "--n", "10", "--eps", radius],
        ["attack", "pgd", "--n", "4", "--steps", "1", rng.choice(("--step-size", "--scale", "--restarts")), rng.choice((number, "2"))],
        ["attack", "fgsm", "--n", "10", "--loss", text],
        ["attack", "fgsm", "--n", "10", "--save", *_out(rng, text)[1:]],
    )


def _of_others(rng: Random, number: str, text: str) -> Sequence[list[str]]:
    return (
        ["report", *_out(rng, text)],
        ["train", "digits_dis", "--dry-run", text],
        ["train", "digits_gen", "--resume", "--run", text],
        [text, text],
        ["--" + text],
        ["recipes", "show", text],
        ["recipes", "check", text, number],
        ["data", "check", rng.choice((text, f"{text}:{text}", f"npz:{text}", "folder:", "digits:digits", "mnist"))],
        ["runs", "ls", "--runs-dir", rng.choice(PATHS)],
    )
