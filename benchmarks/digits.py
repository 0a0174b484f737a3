"""Train the digits recipes over seeds and judge them: ``python benchmarks/digits.py [RECIPE ...]``.

For digits_gen, digits_joint and digits_dis (or those named) and seeds 1 to 3: training time, test accuracy, and where there are chains
what `gmmc eval generate --from noise --n 640 --reference test --features pixels` says of 64 fresh samples a class; then the medians.
"""

import argparse
import json
from pathlib import Path
from statistics import median

from gmmcli.evaluate.generation import pixel_space
from gmmcli.evaluate.judge import PixelJudge
from gmmcli.evaluate.samples import Draw
from gmmcli.evaluate.subject import Subject
from gmmcli.recipe import Recipe
from gmmcli.report import measure
from gmmcli.report.generate import Generation, generate
from gmmcli.run import Run
from gmmcli.train.loop import train
from gmmcli.train.setup import Setup

RECIPES = ["digits_gen", "digits_joint", "digits_dis"]
SEEDS = (1, 2, 3)


def main() -> None:
    """Print one line a training, and one a recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=RECIPES)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/benchmark"))
    arguments = parser.parse_args()
    for name in arguments.recipes:
        rows = []
        for seed in SEEDS:
            setup = Setup.prepare(Recipe.load(name, [f"seed={seed}"]))
            run = Run.create(setup.recipe, arguments.runs_dir, ["benchmarks/digits.py"])
            train(setup, run, quiet=True)
            subject = Subject.open(run.path)
            row = {
                "training_s": run.provenance["wall_time_s"],
                "accuracy": measure.accuracy(subject).result["values"]["accuracy"],
            }
            if setup.recipe.needs_chains:
                asked = Generation(pixel_space(), PixelJudge(subject.dataset.train, 1), Draw("noise"), n=640, reference="test")
                values = generate(subject, asked).result["values"]
                row |= {key: values[key] for key in ("label_agreement", "precision", "recall", "coverage")}
            rows.append(row)
            print(json.dumps({"recipe": name, "seed": seed} | row), flush=True)
        print(json.dumps({"recipe": name, "median": {key: median(row[key] for row in rows) for key in rows[0]}}), flush=True)


if __name__ == "__main__":
    main()
