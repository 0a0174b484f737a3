"""``gmmc export``."""

from pathlib import Path
from typing import Annotated

import typer

from gmmcli.cli.options import OfRun, SomeImages, answer, with_options
from gmmcli.layout import show

EPILOG = "Examples:\n\ngmmc export --out my-model\n\ngmmc export --run digits_gen --best --no-onnx"


@with_options
def export_command(
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write to. Default: export/ in the run.", show_default=False)] = None,
    onnx: Annotated[bool, typer.Option("--onnx/--no-onnx", help="Write model.onnx; needs the packages of gmmcli[onnx].")] = True,
    *,
    of_run: OfRun,
) -> None:
    """Export a model: model.onnx, model.safetensors, and a README.md that tells how to use them and what was measured.

    The ONNX graph takes byte images and gives features, logits, log p(x), calibrated probabilities, and whether the image is known, as
    gmmc classify does. What it computes is compared with the model before it is kept.
    """
    from gmmcli.evaluate.classify import Judgement
    from gmmcli.evaluate.export import export

    judge = Judgement(of_run.open(SomeImages(), saves=out is None))
    run = judge.subject.run
    paths = export(judge, out or run.output / "export", onnx)
    if of_run.json:
        about = {"run": run.id, "step": judge.subject.step, "protocol": judge.protocol}
        answer({"schema": 1, "command": "export", **about, "values": {"files": [str(path) for path in paths]}})
        return
    show(*paths)
