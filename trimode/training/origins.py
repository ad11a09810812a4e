"""What was made for a run to learn from, told in the folders of its stages and in the checkpoints they leave."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trimode.config import Json
from trimode.models.checkpoint import MARK
from trimode.training.folders import write_json

FILE = "data.json"  # in a stage's folder: [{stage, made}], from the first stage to this one


def write_origins(folder: Path, stage: str, made: Sequence[Json], source: Path | None) -> None:
    """Write what the weights of this stage come from: what those of its source did, and what was made for it."""
    before = _read(source / MARK).get("data", []) if source is not None and (source / MARK).exists() else []
    told = [*before, {"stage": stage, "made": list(made)}] if made else before
    (folder / FILE).unlink(missing_ok=True)
    if told:
        write_json(folder / FILE, told)


def origins(folder: Path) -> Json:
    """{data: ...} as a checkpoint tells it, or nothing where nothing was made."""
    return {"data": _read(folder / FILE)} if (folder / FILE).exists() else {}


def _read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))
