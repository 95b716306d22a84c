"""The commands that look and compare: verify, inspect. Knows options; everything else is the library's."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from growkit.cli.app import FAILED, app, people_errors
from growkit.cli.options import AsJson, FamilyName, SourceHeads
from growkit.errors import RequestError


@app.command()
def verify(
    checkpoints: Annotated[list[str], typer.Argument(metavar="SRC... DST", help="The checkpoint before, and after. Several before: their mean logits.")],
    text: Annotated[Optional[Path], typer.Option(help="A file of real text; default random tokens.")] = None,
    tolerance: Annotated[Optional[float], typer.Option(min=0, help="Largest difference over the largest value; default by exactness and dtype.")] = None,
    seed: Annotated[int, typer.Option(metavar="S", help="For the random tokens and the masks.")] = 0,
    as_json: AsJson = False,
    family: FamilyName = None,
    source_heads: SourceHeads = None,
) -> None:  # fmt: skip
    """Run two checkpoints on the same tokens in stock transformers and compare what comes out; exit 1 if too far apart."""
    with people_errors():
        if len(checkpoints) < 2:
            raise RequestError("verify compares two checkpoints: name the one before and the one after")
        from growkit.cli import show
        from growkit.models import verify as proof

        *sources, target = checkpoints
        report = proof.verify(sources, target, text, tolerance, seed, family, source_heads)
        show.report(report, as_json)
    if not report.ok:
        raise typer.Exit(FAILED)


@app.command()
def inspect(
    source: Annotated[str, typer.Argument(metavar="CKPT", help="A folder, a .safetensors file or a hub id.")],
    as_json: AsJson = False,
    family: FamilyName = None,
    source_heads: SourceHeads = None,
) -> None:  # fmt: skip
    """Show what a checkpoint is: family, sizes, parameters by part, and which growth would be exact."""
    with people_errors():
        from growkit.cli import show
        from growkit.growth import inspect as inspection

        show.inspection(inspection.inspect(source, family, source_heads), as_json)
