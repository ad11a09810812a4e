"""`trimode export`: a run's checkpoint, or the mean of its last ones, as a checkpoint folder like any other."""

import sys
from pathlib import Path
from typing import Annotated

import typer

Run = Annotated[Path, typer.Argument(help="The folder of a run (its last stage is taken) or of one stage.")]
Out = Annotated[Path, typer.Option("--out", help="Folder to write; it must not exist yet.")]
Average = Annotated[int, typer.Option("--average", help="Write the mean of the last so many checkpoints.")]
Step = Annotated[int | None, typer.Option("--step", help="The checkpoint of this step, instead of the newest.")]


def export(run: Run, out: Out, average: Average = 1, step: Step = None) -> None:
    """Write a run's checkpoint as a folder that trimode and other libraries load."""
    from trimode.training.export import export_run

    chosen = export_run(run, out, average, step)
    print(f"{out}: from {', '.join(str(path) for path in chosen)}", file=sys.stderr)
