"""Every evaluation of a subject but attacks, in one pass over its images."""

from collections.abc import Sequence

from gmmcli.data.outliers import filed_name
from gmmcli.evaluate.classification import accuracy, calibrate
from gmmcli.evaluate.detection import ood
from gmmcli.evaluate.generation import generate
from gmmcli.evaluate.measured import Measured, save
from gmmcli.evaluate.settings import settings
from gmmcli.evaluate.subject import Subject


def whole(subject: Subject, sets: Sequence[str] | None = None, *, quiet: bool = True) -> tuple[Measured, list[Measured]]:
    """Accuracy, calibration, detection against ``sets`` (see ``ood``) and, where there is a buffer, its images in the best features.

    Returns:
        All results in one, with the warnings of all; and each by itself, with its pictures.
    """
    detected = ood(subject, sets, quiet=quiet)  # first: a set that is missing is told before the one pass, which all others share
    parts = [accuracy(subject), calibrate(subject), detected]
    if subject.run.checkpoint(subject.best).has("buffer"):
        parts.append(generate(subject, settings(subject), quiet=quiet))
    results = {part.result["command"].removeprefix("eval "): part.result for part in parts}
    protocols, values = ({name: result[key] for name, result in results.items()} for key in ("protocol", "values"))
    warnings = [warning for part in parts for warning in part.warnings]
    result = subject.result("eval all", protocols, values)
    return save(subject, result, *map(filed_name, sets or ()), arrays={}, warnings=warnings), parts
