"""The command ``gmmc`` as the fuzzing runs it: with all that its verbs import, and one verb more."""

import importlib

from PIL import Image

import gmmcli
from gmmcli.cli.app import app

IMPORTED_LATE = (
    "gmmcli.attacks.audit",
    "gmmcli.evaluate.audit",
    "gmmcli.evaluate.carlini",
    "gmmcli.evaluate.classification",
    "gmmcli.evaluate.detection",
    "gmmcli.evaluate.generation",
    "gmmcli.evaluate.plots",
    "gmmcli.evaluate.robustness",
    "gmmcli.evaluate.tables",
    "gmmcli.evaluate.tsne",
    "gmmcli.importer.to_run",
    "gmmcli.report.page",
    "gmmcli.study.schedule",
    "gmmcli.train.loop",
    "gmmcli.train.plan",
    "rich.console",
    "sklearn.model_selection",
    "torch._dynamo",
)
"""What verbs import when they run: seconds that every input would pay."""


@app.command("load-model", hidden=True)
def load_model(path: str) -> None:
    """Open a published model as a program of a user would."""
    model, card = gmmcli.load_model(path)
    print(type(model).__name__, len(card.class_names))


def import_all() -> None:
    """Import now what verbs import late."""
    for name in IMPORTED_LATE:
        importlib.import_module(name)
    Image.init()
