"""gmmcli: Generative Max-Mahalanobis Classifiers, trained, sampled and measured honestly.

from gmmcli import open_run
run = open_run("digits_gen")           # its newest run
run.classify("photo.png")              # class, calibrated probability, known or unknown
images, labels = run.sample("3", n=8)  # bytes, n x channel x height x width
run.accuracy()["values"]["accuracy"]
run.attack("pgd", eps=8 / 255)
model = run.model()                    # of images in [-1, 1], see to_model: model(images) are the logits
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from gmmcli.api.run import Run, list_runs, open_run
    from gmmcli.core.classifier import Classifier
    from gmmcli.errors import GmmcError
    from gmmcli.model_card import load_model
    from gmmcli.recipe import Recipe
    from gmmcli.types import to_bytes, to_model

__all__ = ["Classifier", "GmmcError", "Recipe", "Run", "list_runs", "load_model", "open_run", "to_bytes", "to_model"]
_HOMES = {
    "Classifier": "gmmcli.core.classifier",
    "GmmcError": "gmmcli.errors",
    "Recipe": "gmmcli.recipe",
    "Run": "gmmcli.api.run",
    "list_runs": "gmmcli.api.run",
    "load_model": "gmmcli.model_card",
    "open_run": "gmmcli.api.run",
    "to_bytes": "gmmcli.types",
    "to_model": "gmmcli.types",
}


def __getattr__(name: str) -> Any:
    """Import on first use: torch takes a second, the metadata of packages a tenth, and `gmmc --help` needs neither."""
    if name == "__version__":
        from importlib.metadata import version

        return version("gmmcli")
    if name not in _HOMES:
        raise AttributeError(f"module 'gmmcli' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
