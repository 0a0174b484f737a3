"""Everything that needs a GPU, in one command of bounded time: ``python benchmarks/gpu.py all``; `make gpu` and `make gpu-train` are this.

`all` runs the tests marked cuda, then times training steps of WRN-16-4 and WRN-28-10 (`step`), each under its own time limit, within nine
minutes together, without network; all that it writes is in one folder. `train` trains `cifar10_joint_fast` for a slice of time, saves, and
draws its energies so far; called again, it resumes. ``--device cpu`` tries the same with little work where there is no GPU.
"""

import argparse
import gc
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

from step import PLAIN, SHAPE, Step, Work, contenders, figures, operations, ours
from table import Figure, machine, table

HERE = Path(__file__).resolve()
ROUNDS, WARM_UP = 5, 3
NO_GPU = 3
"""Exit code where there is no GPU."""
SAVING = 40.0
"""Seconds of a slice that are left to save and to draw."""


def stages(device: str, out: Path) -> dict[str, tuple[list[str], float]]:
    """The commands of `all`, and the seconds that each may take: 510 together."""
    step = [sys.executable, str(HERE), "step", "--device", device, "--out", str(out)]
    sizes = {"wrn-16-4": ["16", "4"], "wrn-28-10": ["28", "10"]} if device == "cuda" else {"wrn-10-1": ["10", "1"]}
    tests = [sys.executable, "-m", "pytest", "-m", "cuda", "-q", "-p", "no:cacheprovider", str(HERE.parents[1] / "tests" / "test_cuda.py")]
    return {"tests": (tests, 170.0)} | {name: ([*step, "--size", *size], 170.0) for name, size in sizes.items()}


def run_all(device: str, out: Path) -> int:
    """Run every stage, whatever became of the ones before; return 1 where one failed or took too long."""
    failed = []
    for name, (words, limit) in stages(device, out).items():
        started, log = time.perf_counter(), out / f"{name}.log"
        with log.open("w") as file:
            try:
                environment = os.environ | {"DEVICE": device}
                code = subprocess.run(words, stdout=file, stderr=subprocess.STDOUT, env=environment, timeout=limit, check=False).returncode
                told = "done" if code == 0 else f"failed with exit code {code}"
            except subprocess.TimeoutExpired:
                told = f"stopped after its {limit:.0f} s"
        print(f"{name}: {told}, {time.perf_counter() - started:.0f} s, {log}", flush=True)
        if told != "done":
            failed.append(name)
    return 1 if failed else 0


def time_steps(work: Work, out: Path) -> int:
    """Time the contenders one after another, and write what there is after each: to compile may take longer than the stage may."""
    ways: dict[str, tuple[str, bool]] = {PLAIN: (PLAIN, False), "product fp32": ("product fp32", False), "ours fp32": ("ours fp32", False)}
    ways |= {"product tf32": ("product fp32", True), "ours tf32": ("ours fp32", True), "plain tf32 NCHW": (PLAIN, True)}
    ways |= {"product bf16": ("product bf16", True), "ours bf16": ("ours bf16", True)}
    builders, times, memory = contenders(work, bf16=True), {}, {}
    name = f"step-wrn-{work.depth}-{work.width}"
    for way, (built, tf32) in ways.items():
        times[way], memory[way] = timed(builders[built](), work, tf32)
        _write(name, work, times, memory, out)
    for way in ("ours tf32", "ours bf16"):
        compiled = ours(work, "bf16" if way.endswith("bf16") else "fp32", "inductor" if work.device == "cuda" else "eager")
        times[f"{way} compiled"], memory[f"{way} compiled"] = timed(compiled, work, True)
        _write(name, work, times, memory, out)
    return 0


def timed(step: Step, work: Work, tf32: bool) -> tuple[list[float], float]:
    """Seconds of each of a few steps, and the most memory in MiB that they needed on the GPU."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    on_gpu, data, seconds = work.device == "cuda", work.data(), []
    if on_gpu:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    for turn in range(WARM_UP + ROUNDS):
        started = time.perf_counter()
        step(*data)
        if on_gpu:
            torch.cuda.synchronize()
        if turn >= WARM_UP:
            seconds.append(time.perf_counter() - started)
    return seconds, torch.cuda.max_memory_allocated() / 2**20 if on_gpu else 0.0


def _write(name: str, work: Work, times: dict[str, list[float]], memory: dict[str, float], out: Path) -> None:
    found = figures(times, work, operations(work))
    found += [Figure(f"{way}, memory", "MiB", (most,)) for way, most in memory.items() if most and not way.startswith("product")]
    document = {"schema": 1, "machine": machine(), "work": asdict(work), "figures": [asdict(figure) for figure in found]}
    (out / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    page = f"WRN-{work.depth}-{work.width}, {SHAPE[1]} x {SHAPE[2]}, batch {work.batch}, {work.sampler_steps} sampler steps"
    (out / f"{name}.md").write_text(f"{page}\n\n{table({work.device: found})}\n")


def train_slice(recipe: str, data: str | None, device: str, seconds: float, out: Path) -> int:
    """Train for so many seconds, or to the end; return gmmc's exit code, 0 for a slice that ended by its clock."""
    gmmc, runs = [sys.executable, "-m", "gmmcli", "train", "--quiet", "--runs-dir", str(out / "runs")], out / "runs"
    earlier = sorted(runs.glob("*/recipe.toml"), key=lambda path: path.stat().st_mtime_ns)
    words = ["--resume", "--run", str(earlier[-1].parent)] if earlier else [recipe, "--set", f"compute.device={device}"]
    if data and not earlier:
        kind, _, path = data.partition(":")
        words += ["--set", f"data.source={{kind='{kind}',{'path' if kind in ('folder', 'npz') else 'root'}='{path}'}}"]
    training = subprocess.Popen([*gmmc, *words])
    try:
        code = training.wait(timeout=max(1.0, seconds - SAVING))
    except subprocess.TimeoutExpired:
        training.send_signal(signal.SIGTERM)  # it saves its state and stops
        code = training.wait(timeout=SAVING)
        print("the slice is over; run it again to resume", flush=True)
        code = 0 if code == 130 else code
    done = [path.parent for path in runs.glob("*/metrics.jsonl") if path.stat().st_size]
    if done:
        subprocess.run(
            [sys.executable, str(HERE.with_name("curves.py")), str(out / "curve.png"), *map(str, done)], check=False, timeout=SAVING
        )
    return code


def main() -> None:
    """Run what was asked for; exit code 3 where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["all", "step", "train"])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), help="the folder that everything is written to")
    parser.add_argument("--size", type=int, nargs=2, default=(16, 4), metavar=("DEPTH", "WIDTH"), help="with step: of the Wide-ResNet")
    parser.add_argument("--recipe", default="cifar10_joint_fast", help="with train")
    parser.add_argument("--data", help="with train: folder:PATH, npz:PATH or cifar10:PATH instead of the recipe's own source")
    parser.add_argument("--seconds", type=float, default=540.0, help="with train: how long a slice is")
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        print("torch finds no GPU here: nothing was run (--device cpu tries the same commands with little work)", file=sys.stderr)
        raise SystemExit(NO_GPU)
    asked.out.mkdir(parents=True, exist_ok=True)
    out = asked.out.resolve()
    if asked.what == "all":
        raise SystemExit(run_all(asked.device, out))
    if asked.what == "train":
        raise SystemExit(train_slice(asked.recipe, asked.data, asked.device, asked.seconds, out))
    depth, width = asked.size
    small = {"batch": 2, "sampler_steps": 1, "matrix": 64} if asked.device == "cpu" else {}
    raise SystemExit(time_steps(Work(depth, width, device=asked.device, **small), out))


if __name__ == "__main__":
    main()
