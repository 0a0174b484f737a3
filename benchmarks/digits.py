"""Train the digits recipes over seeds and judge them: ``python benchmarks/digits.py [RECIPE ...]``.

For digits_gen, digits_joint and digits_dis (or those named) and seeds 1 to 3: training time, test accuracy, and for the first two what
`benchmarks/samples.py` measures on 64 fresh samples a class; then the medians.
"""

import argparse
import json
from pathlib import Path
from statistics import median

from gmmcli.evaluate.accuracy import accuracy_result
from gmmcli.recipe import Recipe
from gmmcli.run import Run
from gmmcli.train.loop import train
from gmmcli.train.setup import Setup
from samples import judge, measure

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
            state = train(setup, run, quiet=True)
            run.save_result({"command": "eval accuracy", "step": state.step, **accuracy_result(state.model, setup.dataset)})
            rows.append({"training_s": run.provenance["wall_time_s"], "accuracy": run.result("eval accuracy")["values"]["accuracy"]})
            if setup.recipe.needs_chains:
                rows[-1] |= measure(run, setup.dataset, judge(setup.dataset.train), 64, None, None, seed=1)
            print(json.dumps({"recipe": name, "seed": seed} | rows[-1]), flush=True)
        print(json.dumps({"recipe": name, "median": {key: median(row[key] for row in rows) for key in rows[0]}}), flush=True)


if __name__ == "__main__":
    main()
