"""gmmcli: Generative Max-Mahalanobis Classifiers, trained, sampled and measured honestly.

from gmmcli import open_run
run = open_run("runs/...")
model = run.model()            # model(images) are the logits, model.features(images) the features
buffer = run.buffer()
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from gmmcli.core.classifier import Classifier
    from gmmcli.model_card import load_model
    from gmmcli.recipe import Recipe
    from gmmcli.run import Run, open_run

__all__ = ["Classifier", "Recipe", "Run", "load_model", "open_run"]
_HOMES = {
    "Classifier": "gmmcli.core.classifier",
    "Recipe": "gmmcli.recipe",
    "Run": "gmmcli.run",
    "load_model": "gmmcli.model_card",
    "open_run": "gmmcli.run",
}


def __getattr__(name: str) -> Any:
    """Import on first use: torch takes a second, the metadata of packages a tenth, and `gmmc --help` needs neither."""
    if name == "__version__":
        from importlib.metadata import version

        return version("gmmcli")
    if name not in _HOMES:
        raise AttributeError(f"module 'gmmcli' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
