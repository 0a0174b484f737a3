"""Checkpoints as the authors' code writes them, damaged or made to run a command when they are unpickled."""

import io
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from random import Random

import checkpoints
import torch
from box import CANARY
from npz_inputs import archive, tampered_zip
from texts import damaged_bytes, write

COMMAND = f"touch ../{CANARY}"
HOSTILE = (
    b"cos\nsystem\n(S'%s'\ntR.",
    b"cposix\nsystem\n(S'%s'\ntR.",
    b"(S'%s'\nios\nsystem\n.",
    b"\x80\x02c__builtin__\neval\n(X\x2b\x00\x00\x00__import__('os').system('touch ../gmmc-canary')tR.",
    b"\x80\x04\x8c\x02os\x8c\x06system\x93(S'%s'\ntR.",
    b"cnumpy.testing._private.utils\nrunstring\n(S'import os; os.system(\"%s\")'\n}tR.",
    b"ccollections\nOrderedDict\n(ctorch\n_utils\n.",
    b"\x80\x02" + b"(" * 5000 + b"." ,
    b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".",
    b"\x80\x02X\xff\xff\xff\x7f.",
    b"\x80\x04\x8e" + b"\xff" * 7 + b"\x00.",
    b"\x80\x02]q\x00h\x00a.",
    b"I" + b"9" * 5000 + b"\n.",
)  # fmt: skip
"""Pickles that call a command, or that grow, nest, or hold themselves."""


@cache
def files(form: checkpoints.Form) -> dict[str, bytes]:
    """One file each of GMMC and JEM."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        gmmc = checkpoints.save_gmmc(Path(folder) / "gmmc.pt", form)
        document = {"model_state_dict": checkpoints.JEM().state_dict(), "replay_buffer": checkpoints.replay_buffer()[0]}
        jem = checkpoints.save(document, Path(folder) / "jem.pt", form)
        return {"gmmc": gmmc.read_bytes(), "jem": jem.read_bytes()}


@cache
def pickles() -> dict[str, bytes]:
    """The members of GMMC's zip."""
    with zipfile.ZipFile(io.BytesIO(files("zip")["gmmc"])) as file:
        return {name: file.read(name) for name in file.namelist()}


def content(rng: Random) -> bytes:
    """A file in place of theirs."""
    form = rng.choice(checkpoints.FORMS)
    plain = files(form)[rng.choice(("gmmc", "jem"))]
    chance = rng.random()
    if chance < 0.25:
        return damaged_bytes(rng, plain)
    if chance < 0.35:  # where the pickle is
        return damaged_bytes(rng, plain[:4000]) + plain[4000:]
    if chance < 0.4 and form == "zip":
        return tampered_zip(rng, plain)
    hostile = rng.choice(HOSTILE).replace(b"%s", COMMAND.encode())
    if chance < 0.5:
        return hostile
    if chance < 0.6:
        return plain.replace(b"collections\nOrderedDict", rng.choice((b"os\nsystem", b"builtins\neval", b"torch\nload", b"a\nb")))
    members = dict(pickles())
    pickled = next(name for name in members if name.endswith("data.pkl"))
    if chance < 0.8:
        members[pickled] = hostile if rng.random() < 0.5 else damaged_bytes(rng, members[pickled])
    else:
        member = rng.choice(list(members))
        members[member] = rng.choice((b"", damaged_bytes(rng, members[member] or b"x"), members[member] * 2))
    return archive(members, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


def authors(rng: Random, work: Path) -> list[str]:
    """``gmmc import`` of a file."""
    write(work / "theirs.pt", content(rng))
    return ["import", "theirs.pt", *rng.choice(([], ["--json"], ["--name", "../outside/x"], ["--quiet"]))]
