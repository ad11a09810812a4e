"""`trimode convert`: an ordinary causal checkpoint becomes one that joint training can make tri-mode."""

from pathlib import Path
from typing import Annotated

import typer

Base = Annotated[str, typer.Argument(help="Checkpoint folder or Hub id: llama, ministral3, mistral, qwen2, qwen3, ...")]
Out = Annotated[Path, typer.Option(help="The folder to write; it must not exist, or be empty.")]
MaskToken = Annotated[str | None, typer.Option(help="A special token nothing writes (default: found, or added).")]
BlockSize = Annotated[int, typer.Option(help="Slots of a canvas, 1 to 1024.")]
Layout = Annotated[str, typer.Option(help="keep the base's names, or nemotron (of ministral3 and mistral).")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16 (default: the base's).")]


def convert(
    base: Base, out: Out, mask_token: MaskToken = None, block_size: BlockSize = 32, layout: Layout = "keep",
    dtype: Dtype = None,
) -> None:  # fmt: skip
    """Untie the head, choose or add a mask token, write the config. The result has to be trained."""
    from trimode.models.convert import convert as run

    report = run(base, out, mask_token=mask_token, block_size=block_size, layout=layout, dtype=dtype)
    print(report.text())
