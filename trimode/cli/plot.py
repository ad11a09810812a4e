"""`trimode plot`: the curves of a training run as a picture."""

import sys
from pathlib import Path
from typing import Annotated

import typer

Run = Annotated[Path, typer.Argument(help="Run folder, or the folder of one of its stages.", show_default=False)]
Out = Annotated[Path, typer.Option(help="Picture to write; its ending names the kind (.png, .svg, .pdf).")]


def plot(run: Run, out: Out = Path("curves.png")) -> None:
    """Draw losses, learning rate, gradient norm and speed of a training run."""
    from trimode.training.plot import plot as draw

    picture = draw(run, out)
    for note in picture.notes:
        print(f"trimode: {note}", file=sys.stderr)
    print(f"stages {', '.join(picture.stages)}", file=sys.stderr)
    print(picture.path)
