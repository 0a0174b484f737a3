"""Run thousands of damaged, dishonest and hostile inputs through gmmc's commands and count what became of them: ``make fuzz``.

An input is a function of its kind and number: ``python tests/fuzz/fuzz.py --only npz:17`` shows and repeats one.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from worker import KINDS, Input, work

from gmmcli.provenance import git_revision

FAULTS = ("traceback", "time", "memory", "crash", "code", "silent", "text", "outside", "ran")
HEAD = """## Fuzzing

`make fuzz` runs inputs that are damaged, dishonest or hostile through the commands of gmmc, and counts what becomes of
them. Each runs in a process and a folder of its own, with at most {memory} GiB of memory beyond the imported modules,
{cpu} s of processor time and {seconds} s of wall time; one in {real} goes through `python -m gmmcli`, the others through
the same command in a forked process. An input is a function of its kind and number:
`{repeat}` repeats one.

Expected of each: it ends in time and memory with an exit code of [cli.md](cli.md), without a traceback; a refusal says
why on stderr, in few lines of readable length without control characters; nothing is written or run outside of the
working directory and the user's cache. *Other faults* counts the rest: a crash, another exit code, no message, or a
message that is no plain text.

{date}, commit {commit}: {total:,} inputs in {minutes:.0f} minutes.

| kind | inputs | accepted | refused, by exit code | tracebacks | time-outs | out of memory | other faults | written outside | code run |
|---|---|---|---|---|---|---|---|---|---|
"""


def run(inputs: Sequence[Input], jobs: int, folder: Path) -> list[dict[str, Any]]:
    """Run inputs in worker processes; return what became of each."""
    context = multiprocessing.get_context("spawn")
    files = [folder / f"results-{job}.jsonl" for job in range(jobs)]
    workers = [context.Process(target=work, args=(inputs[job::jobs], folder / str(job), file)) for job, file in enumerate(files)]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        time.sleep(0.5)
        if sys.stderr.isatty():
            print(f"\r{sum(map(_n_lines, files)):,} of {len(inputs):,}", end="", file=sys.stderr)
    if any(worker.exitcode for worker in workers):
        raise SystemExit("a worker failed: its traceback is above")
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def _n_lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


def table(results: Sequence[dict[str, Any]]) -> str:
    """One row a kind, and a row of sums."""
    rows = {kind: [result for result in results if result["kind"] == kind] for kind in KINDS}
    return "\n".join(_row(kind, found) for kind, found in [*rows.items(), ("all", list(results))] if found) + "\n"


def _row(kind: str, results: Sequence[dict[str, Any]]) -> str:
    faults = Counter(fault for result in results for fault in result["faults"])
    codes = Counter(result["exit_code"] for result in results if not result["faults"])
    refused = ", ".join(f"{code}: {n:,}" for code, n in sorted(codes.items()) if code)
    other = sum(faults[fault] for fault in ("crash", "code", "silent", "text"))
    counts = (faults["traceback"], faults["time"], faults["memory"], other, faults["outside"], faults["ran"])
    return f"| {kind} | {len(results):,} | {codes[0]:,} | {refused} | " + " | ".join(f"{n:,}" for n in counts) + " |"


def findings(results: Sequence[dict[str, Any]]) -> str:
    """Each different fault once: its kind and number, how often, the command, and where it ended."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for result in results:
        for fault in result["faults"]:
            last = result["stderr"].rstrip().splitlines()[-3:] if fault in ("traceback", "memory") else result["stderr"].splitlines()[:1]
            place = [line.strip() for line in result["stderr"].splitlines() if line.startswith("  File ")][-1:]
            groups.setdefault((result["kind"], fault, tuple(place), (last or [""])[-1][:60]), []).append(result)
    lines = []
    for (kind, fault, place, last), found in sorted(groups.items(), key=lambda item: (item[0][:2], -len(item[1]))):
        first = found[0]
        lines.append(
            f"{fault:9} {len(found):4} x {kind}:{first['number']}  {' '.join(first['words'])[:100]!r}\n    {last!r} {''.join(place)}"
        )
    return "\n".join(lines)


def main() -> None:
    """The command."""
    from box import CPU_SECONDS, MEMORY, SECONDS
    from worker import REAL_EVERY

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_800, help="inputs in all, shared by the kinds")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", metavar="KIND[:NUMBER]", help="this kind, or this input")
    parser.add_argument("--from", dest="start", type=int, default=0, help="the first number of each kind")
    parser.add_argument("--page", type=Path, help="write the section of docs/reliability.md here")
    asked = parser.parse_args()
    kind, _, number = (asked.only or "").partition(":")
    if kind and kind not in KINDS:
        parser.error(f"no kind {kind!r}; there are {', '.join(KINDS)}")
    shares = {name: KINDS[name][1] for name in KINDS if kind in ("", name)}
    counts = {name: round(asked.inputs * share / sum(shares.values())) for name, share in shares.items()}
    inputs = [(name, asked.start + i) for name, n in counts.items() for i in range(n)]
    if number:
        inputs = [(kind, int(number))]
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gmmc-fuzz-") as folder:
        results = run(inputs, min(asked.jobs, len(inputs)), Path(folder))
    minutes = (time.monotonic() - started) / 60
    revision = git_revision(Path(__file__).parent) or "unknown"
    text = HEAD.format(
        memory=MEMORY >> 30,
        cpu=CPU_SECONDS,
        seconds=SECONDS,
        real=REAL_EVERY,
        repeat="make fuzz ONLY=npz:17",
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        commit=revision[:7] + revision[40:],
        total=len(results),
        minutes=minutes,
    ) + table(results)
    if number:
        print(json.dumps(results[0], indent=1))
    print(findings(results), text, sep="\n\n")
    if asked.page:
        asked.page.write_text(text, encoding="utf-8")
    sys.exit(any(result["faults"] for result in results))


if __name__ == "__main__":
    main()
