"""`trimode merge`: a checkpoint with a domain adapter in its weights."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from trimode.errors import InvalidInput

Source = Annotated[str, typer.Argument(help="Checkpoint folder or Hub id.")]
Change = Annotated[Path, typer.Argument(help="Folder of the adapter, in peft's format.")]
Out = Annotated[Path, typer.Option(help="Folder to write; it must not hold anything yet.")]


def merge(model: Source, adapter: Change, out: Out) -> None:
    """Add an adapter to the weights of its model, and write that as a checkpoint of the same layout and dtype."""
    from trimode.models.adapters import Adapter
    from trimode.models.checkpoint import export, load_model, resolve
    from trimode.models.complete import complete_folder
    from trimode.models.merging import merge as add

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidInput(f"--out {out} is there already, choose a folder that is new or empty")
    folder = resolve(model)
    network = load_model(folder, "float32", "cpu")  # so that the sum is rounded once
    add(network, Adapter.load(adapter, network.config))
    with complete_folder(out) as made:
        export(network, folder, made)
    print(f"{adapter} merged into {model}: {out}", file=sys.stderr)
