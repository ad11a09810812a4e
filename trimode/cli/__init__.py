"""The command line: `trimode <verb>`, one short module per verb. Results go to stdout, talk to stderr."""

import os
import sys

import typer

from trimode.cli.chat import chat
from trimode.cli.convert import convert
from trimode.cli.demo import demo
from trimode.cli.eval import evaluate
from trimode.cli.export import export
from trimode.cli.generate import generate
from trimode.cli.merge import merge
from trimode.cli.plot import plot
from trimode.cli.serve import serve
from trimode.cli.train import train
from trimode.errors import StorageError, TrimodeError

app = typer.Typer(
    help="Tri-mode language models: autoregressive, block diffusion and self-speculation from one checkpoint.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(generate)
app.command()(chat)
app.command()(serve)
app.command()(demo)
app.command()(convert)
app.command()(export)
app.command()(merge)
app.command()(plot)
app.command()(train)
app.command("eval")(evaluate)


def main() -> None:
    """Run a verb. Exit codes: 0 done, 1 the machine failed (disk, memory), 2 bad input, 130 or 143 interrupted."""
    try:
        app()
    except TrimodeError as error:
        print(f"trimode: {error}", file=sys.stderr)
        sys.exit(1 if isinstance(error, StorageError) else 2)
    except BrokenPipeError:  # the reader of a pipe has left; there is nobody to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (OSError, MemoryError) as error:
        print(f"trimode: {error}", file=sys.stderr)
        sys.exit(1)
