"""Train a recipe on CIFAR-10 and have its samples judged: the rows of docs/training.md.

    python benchmarks/colour.py data/cifar10 cifar10_quick_joint [RECIPE ...] [--judge RUN] [--runs-dir DIR]

The judge is an independent softmax network with batch norm (cifar10_small_softmax, seed 7), trained first unless a run is named. 640 fresh
samples, 64 a class, are compared with the test images in the judge's features, beside the images that their chains start from and as many
real ones. Settings are chosen on validation images (--reference train of gmmc eval generate), never on these figures.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

FIGURES = ("label_agreement", "feature_fid", "precision", "recall", "coverage")


def gmmc(*words: str) -> dict[str, Any]:
    """Run a command of gmmc and return its answer."""
    answered = subprocess.run([sys.executable, "-m", "gmmcli", *words, "--json"], stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(answered.stdout)
    return answer


def row(name: str, values: dict[str, Any]) -> str:
    """One line of a Markdown table."""
    return f"| {name} | " + " | ".join(f"{values[figure]:.3f}" if figure in values else "" for figure in FIGURES) + " |"


def main() -> None:
    """Train, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="CIFAR-10 as a folder: train/CLASS/*.png, test/CLASS/*.png")
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--judge", help="a run that names the classes, and whose features are the space")
    parser.add_argument("--runs-dir", default="runs")
    asked = parser.parse_args()
    runs = ("--runs-dir", asked.runs_dir)
    data = ("--set", "data.source.kind=folder", "--set", f"data.source.path={asked.data}")
    judge = asked.judge or gmmc("train", "cifar10_small_softmax", "--set", "name=judge", "--set", "seed=7", *data, *runs)["run"]
    sample_options = ("--from", "noise", "--n", "640", "--reference", "test", "--features", judge, "--judge", judge)
    for recipe in asked.recipes:
        trained = gmmc("train", recipe, *data, *runs)
        minutes = json.loads((Path(asked.runs_dir) / trained["run"] / "provenance.json").read_text())["wall_time_s"] / 60
        values = gmmc("eval", "generate", "--run", trained["run"], *sample_options, *runs)["values"]
        low, high = trained["values"]["ci95"]
        print(f"{trained['run']}: {minutes:.1f} min, test accuracy {trained['values']['accuracy']:.2%} ({low:.2%} to {high:.2%})")
        print(
            f"judge {judge}: {values['judge_accuracy']:.2%}\n\n| images | " + " | ".join(FIGURES) + " |\n|---" + "|---" * len(FIGURES) + "|"
        )
        print("\n".join(row(name, part) for name, part in (("samples", values), ("starts", values["starts"]), ("real", values["real"]))))


if __name__ == "__main__":
    main()
