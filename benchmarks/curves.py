"""Draw the energies of runs over training: ``python benchmarks/curves.py OUT.png RUN [RUN ...]``."""

import sys

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot as plt

from gmmcli.run import open_run

SHOWN = {"energy_data": "real images", "energy_start": "chains, start of a visit", "energy_model": "chains, end of a visit"}


def main() -> None:
    """One panel a run, energies on a logarithmic scale."""
    out, *names = sys.argv[1:]
    figure, axes = plt.subplots(1, len(names), figsize=(5 * len(names), 3.4), squeeze=False, layout="constrained")
    for axis, name in zip(axes[0], names, strict=True):
        run = open_run(name)
        lines = [line for line in run.metrics() if "energy_data" in line]
        for key, label in SHOWN.items():
            points = [(line["step"], line[key]) for line in lines if key in line]
            axis.plot(*zip(*points, strict=True), label=label, linewidth=1)
        axis.set(title=run.recipe.name, xlabel="training step", ylabel="mean energy", yscale="log")
    axes[0][0].legend(fontsize=8)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main()
