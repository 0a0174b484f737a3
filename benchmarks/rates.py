"""Images a second of evaluation and of attacks, whole as the commands do them: ``python benchmarks/rates.py``."""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import synthetic
from gmmcli.attacks.algorithms import configured
from gmmcli.evaluate.classification import accuracy
from gmmcli.evaluate.detection import ood
from gmmcli.evaluate.robustness import robust_accuracy
from gmmcli.evaluate.subject import Subject
from table import Figure, table

N, STEPS = 160, 5


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


def evaluation(rounds: int = 3) -> list[Figure]:
    """Accuracy with its validation pass, and outlier detection by all scores that need no fit, with the approximate mass."""
    with TemporaryDirectory() as folder:
        subject = synthetic.subject(Path(folder), N)
        return [
            Figure("eval accuracy", "images/s", tuple(2 * N / took for took in timed(subject, accuracy, rounds))),
            Figure(
                "eval ood, with mass", "images/s", tuple(2 * N / took for took in timed(subject, lambda s: ood(s, ["uniform"]), rounds))
            ),
        ]


def attack(rounds: int = 3) -> list[Figure]:
    """PGD on the margin with a radius at which every image is broken last or never: all steps of all images count."""
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
