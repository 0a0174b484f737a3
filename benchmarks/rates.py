"""Images a second of evaluation, and steps of attacks: ``python benchmarks/rates.py``. WRN-16-2 on 32 x 32 colour images."""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import synthetic
from gmmcli.attacks.algorithms import configured
from gmmcli.evaluate.robustness import robust_accuracy
from gmmcli.evaluate.subject import Subject
from table import Figure, table

N, STEPS = 250, 5


def timed(subject: Subject, verb: Callable[[Subject], object], rounds: int) -> tuple[float, ...]:
    """Seconds of a verb, each time on a subject that has not been looked at yet, after one to warm up."""
    seconds = []
    for turn in range(rounds + 1):
        fresh = replace(subject, _passes={})
        started = time.perf_counter()
        verb(fresh)
        if turn:
            seconds.append(time.perf_counter() - started)
    return tuple(seconds)


def evaluation(rounds: int = 5) -> list[Figure]:
    """The passes that accuracy takes (test and validation images) and that outlier detection takes (with a gradient of every image)."""
    with TemporaryDirectory() as folder:
        subject = synthetic.subject(Path(folder), N)
        plain = timed(subject, lambda s: (s.outputs(), s.held_out), rounds)
        mass = timed(subject, lambda s: s.outputs(mass=True), rounds)
        return [
            Figure("eval accuracy", "images/s", tuple(2 * N / took for took in plain)),
            Figure("eval ood, with mass", "images/s", tuple(N / took for took in mass)),
        ]


def attack(rounds: int = 3) -> list[Figure]:
    """PGD on the margin that goes on with broken images, so that all steps of all images are computed."""
    with TemporaryDirectory() as folder:
        subject = synthetic.subject(Path(folder), N)
        pgd = replace(configured("pgd", loss="margin", steps=STEPS), throughout=True)
        took = timed(subject, lambda s: robust_accuracy(s, pgd, [1 / 255]), rounds)
        return [Figure("pgd", "image steps/s", tuple(STEPS * N / seconds for seconds in took))]


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(table({"evaluation": evaluation(), "attack": attack()}))


if __name__ == "__main__":
    main()
