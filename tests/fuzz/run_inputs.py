"""Models and runs: safetensors with dishonest headers, run directories whose files are damaged, and names of runs."""

import json
import os
import struct
import tempfile
from functools import cache
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

from box import Box
from texts import NUMBERS, damaged_bytes, damaged_json, damaged_text, encodable, json_value, name, word, write
from toml_inputs import TINY, damaged_recipe, with_other_values

MODEL, RUN = "model.safetensors", "2026-01-01T000000Z-tiny"


@cache
def run_files() -> dict[str, bytes]:
    """The files of a run that was trained for a second: two checkpoints, a result, metrics."""
    with tempfile.TemporaryDirectory() as folder:
        box = Box(Path(folder) / "trained")
        write(box.work / "tiny.toml", TINY)
        trained = box.run(["train", "tiny.toml"])
        if trained.faults:
            raise RuntimeError(trained.stderr)
        (run,) = (box.work / "runs").iterdir()
        paths = sorted(path for path in run.rglob("*") if path.is_file())
        return {f"{RUN}/{path.relative_to(run)}": path.read_bytes() for path in paths}


def unpacked(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and what follows it."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def packed(header: bytes, data: bytes, length: int | None = None) -> bytes:
    """A safetensors file of this header, which claims to be so long."""
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def _metadata(rng: Random, about: dict[str, Any]) -> None:
    """Something else in what a model says of itself."""
    key = rng.choice(("recipe", "recipe", "class_names", "image_shape", "gamma2", "strange"))
    if rng.random() < 0.1:
        about.pop(key, None)
        return
    match key:
        case "recipe":
            text = with_other_values(rng, about.get("recipe", TINY)) if rng.random() < 0.7 else damaged_recipe(rng)
            sizes = ("width = 120", "width = 100000", "width = 9223372036854775807", "width = 2")
            about["recipe"] = text.replace("width = 1\n", rng.choice(sizes) + "\n") if rng.random() < 0.3 else text
        case "class_names":
            odd = ([], ["a"], [1, 2], "abc", None, {}, [["a"]], ["a"] * 10, [encodable(name(rng)) for _ in range(10)])
            about[key] = json.dumps(rng.choice((*odd, [str(k) for k in range(50_000)], json_value(rng))))
        case "image_shape":
            odd_shapes = (
                [1, 8],
                [3, 8, 8],
                [-1, 8, 8],
                [1, 0, 0],
                [1, 2**40, 2**40],
                [1.0, 8, 8],
                ["1", 8, 8],
                [1, 8, 9],
                [2, 8, 8],
                8,
                None,
            )
            about[key] = json.dumps(rng.choice((*odd_shapes, json_value(rng))))
        case "gamma2":
            about[key] = rng.choice((*NUMBERS[:24], '"x"', "NaN", "-Infinity", "[]", "{}", "true", "", "[" * 100_000))
        case _:
            about[encodable(name(rng))] = "x"


def _entry(rng: Random, header: dict[str, Any]) -> None:
    """Another type, shape or place of one tensor."""
    key = rng.choice([key for key in header if key != "__metadata__"])
    entry, size = header[key], 2**40
    match rng.randrange(7):
        case 0:
            entry["dtype"] = rng.choice(("F16", "BF16", "F64", "I64", "U8", "BOOL", "F4", "F8_E4M3", "C64", "x", "", 3, None))
        case 1:
            entry["shape"] = rng.choice(
                ([], [0], [size, 0], [size, size], [-1], [1.5], "x", None, entry["shape"][::-1], [1, *entry["shape"]])
            )
        case 2:
            begin, end = entry["data_offsets"]
            odd = ([end, begin], [begin, end + 4], [begin + 4, end], [0, 0], [-4, 4], [begin, size], [2**63, 2**64], [begin], "x", None)
            entry["data_offsets"] = rng.choice(odd)
        case 3:
            del header[key]
        case 4:
            header[rng.choice(("strange", encodable(name(rng)), "../x"))] = header.pop(key)
        case 5:
            header[key] = json_value(rng)
        case _:
            del entry[rng.choice(list(entry))]


def tensors_file(rng: Random, content: bytes) -> bytes:
    """A safetensors file that is not as it was."""
    header, data = unpacked(content)
    chance = rng.random()
    if chance < 0.2:
        return damaged_bytes(rng, content)
    if chance < 0.3:
        text = json.dumps(header).encode()
        return packed(text, data, rng.choice((0, 1, 8, len(text) - 1, len(text) + 1, 10**8, 2**40, 2**63, 2**64 - 1)))
    if chance < 0.4:
        odd = (b"", b"{}", b"[]", b"{", b"[" * 100_000, b'{"a":' * 200 + b"1" + b"}" * 200, b"\xff" * 64, b" " * 64, b'{"__metadata__":3}')
        return packed(rng.choice(odd), data)
    if chance < 0.5:
        floats = bytearray(data)
        for at in range(0, len(floats) - 3, rng.choice((4, 4000))):
            floats[at : at + 4] = struct.pack("<f", rng.choice((float("nan"), float("inf"), 1e38, 0.0)))
        return packed(json.dumps(header).encode(), bytes(floats))
    if chance < 0.75:
        _metadata(rng, header.setdefault("__metadata__", {}))
    else:
        _entry(rng, header)
    return packed(json.dumps(header).encode(), data)


def model(rng: Random, work: Path) -> list[str]:
    """A ``model.safetensors`` of somebody else: opened by a program, or what a training starts from."""
    write(work / MODEL, tensors_file(rng, run_files()[f"{RUN}/checkpoints/step-00000019/{MODEL}"]))
    if rng.random() < 0.8:
        return ["load-model", MODEL]
    write(work / "tiny.toml", TINY)
    return ["train", "tiny.toml", "--dry-run", "--set", f"init.from={MODEL}"]


def write_run(work: Path, files: dict[str, bytes] | None = None) -> Path:
    """Write these files, those of the good run by default, and return the run's path."""
    for path, content in (files or run_files()).items():
        write(work / "runs" / path, content)
    return work / "runs" / RUN


READERS = (
    ["sample", "--class", "0", "--n", "2", "--steps", "2"],
    ["sample", "--class", "1", "--n", "2", "--from", "buffer"],
    ["sample", "--n", "10", "--steps", "1", "--best"],
    ["runs", "show"], ["runs", "show", "--json"], ["runs", "ls"], ["runs", "ls", "--json"],
    ["eval", "accuracy", "--n", "20"], ["report", "--json"],
)  # fmt: skip


def checkpoint(rng: Random, work: Path) -> list[str]:
    """A run whose newest checkpoint has one other part, with a manifest that vouches for it or not."""
    files = dict(run_files())
    folder = f"{RUN}/checkpoints/step-00000019/"
    part = rng.choice([path for path in files if path.startswith(folder) and not path.endswith("manifest.json")])
    content = files[part]
    files[part] = tensors_file(rng, content) if part.endswith("safetensors") else damaged_json(rng, json.loads(content))
    manifest = json.loads(files[folder + "manifest.json"])
    if rng.random() < 0.85:
        manifest[part.removeprefix(folder)] = {"bytes": len(files[part]), "sha256": sha256(files[part]).hexdigest()}
    files[folder + "manifest.json"] = json.dumps(manifest).encode() if rng.random() < 0.9 else damaged_json(rng, manifest)
    write_run(work, files)
    return rng.choice(READERS)


def run(rng: Random, work: Path) -> list[str]:
    """A run directory with a damaged, missing or strange file; or a run, or a directory of runs, with a hostile name."""
    path = write_run(work)
    if rng.random() < 0.35:
        return _named(rng, path)
    if rng.random() < 0.1:
        write(work / "runs" / "study.toml", damaged_text(rng, TINY))
        return ["report", "--study", "runs"]
    for _ in range(rng.randint(1, 2)):
        _spoil(rng, path)
    return rng.choice((*READERS, ["train", "--resume", "--run", path.name]))


def _spoil(rng: Random, path: Path) -> None:
    names = ("provenance.json", "recipe.toml", "metrics.jsonl", "results/eval-accuracy.json", "checkpoints/step-00000019/manifest.json")
    target = path / rng.choice((*names, "checkpoints/step-00000019/progress.json", "results", "checkpoints", ".lock"))
    before = run_files().get(f"{RUN}/{target.relative_to(path)}", b"{}")
    outside = path.parents[2] / "outside"
    odd_steps = ("step-", "step-²", "step-" + "9" * 200, "step-00000011.bak", "step--1", ".old-step-00000012", "step-00000099")
    if rng.random() < 0.15:
        strange = path / "checkpoints" / rng.choice(odd_steps)
        write(strange / "manifest.json", rng.choice((b"{}", b"[]", b"", b'{"model.safetensors": 3}')))
        return
    if rng.random() < 0.3 and target.exists():
        moved = target.rename(target.with_name(f"moved-{target.name}"))
        match rng.randrange(6):
            case 0:
                target.mkdir()
            case 1:
                target.symlink_to(rng.choice((target.name, moved.name, "gone", outside, outside / "canary.txt")))
            case 2 if rng.random() < 0.2:
                os.mkfifo(target)
            case 3:
                target.write_bytes(b"")
        return
    if target.is_dir() or target.is_symlink() or not target.exists():
        return
    if target.suffix == ".toml":
        text = with_other_values(rng, before.decode()) if rng.random() < 0.6 else damaged_recipe(rng)
        write(target, text)
    elif target.suffix == ".jsonl":
        write(
            target,
            rng.choice((b"\x00\xff" * 50, b"{}\n" * 5, b"[]\n3\n", b'{"step": "x"}\n', before + b'{"step"', b"[" * 100_000, b"9" * 5000)),
        )
    elif target.suffix == ".json":
        write(target, damaged_bytes(rng, before) if rng.random() < 0.2 else damaged_json(rng, json.loads(before)))


def _named(rng: Random, path: Path) -> list[str]:
    """``--run`` and ``--runs-dir`` with names of all sorts; some of them are there."""
    text = rng.choice((word(rng), path.name[: rng.randint(1, 25)], f"runs/{path.name}", "../outside", "tiny", "9" * 5000))
    if rng.random() < 0.3 and len(text.encode(errors="surrogateescape")) < 200 and not set("/\x00\ud800") & set(text) and text.strip("."):
        path.rename(path.with_name(text))
    words = rng.choice((["runs", "show"], ["sample", "--n", "10", "--steps", "1"], ["report"], ["train", "--resume"], ["eval", "accuracy"]))
    if rng.random() < 0.3:
        return [*words, "--runs-dir", text]
    return [*words, "--run", text]
