"""Rows -> JSONL files, complete or absent. Knows no kind of rows."""

import hashlib
import json
import os
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from trimode.config import Json
from trimode.errors import InvalidInput, StorageError
from trimode.evaluation.corpora.base import Found, digest
from trimode.training.folders import partial_name
from trimode.training.made import Make


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A file to be made, or the reason why it cannot be (`flaw`)."""

    make: Make
    folder: Path
    found: Found | None = None
    flaw: str | None = None

    @cached_property
    def path(self) -> Path:
        """The file, named by a hash of the table, what the rows are made of, and the code that makes them."""
        decides = {
            "kind": self.make.kind, "fields": self.make.fields, "inputs": self.found.inputs if self.found else {},
            "code": digest(Path(__file__).parent.glob("*.py")), "python": list(sys.version_info[:2]),
        }  # fmt: skip
        named = hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()[:12]
        return self.folder / f"{self.make.name}-{named}.jsonl"

    @property
    def is_there(self) -> bool:
        return self.path.is_file()

    def __str__(self) -> str:
        """`tasks (procedural): runs/data/tasks-0123.jsonl, to be made`, or what is missing."""
        head = f"{self.make.name} ({self.make.kind})"
        if self.found is None:
            return f"{head}: left out, {self.flaw}"
        without = f" without {len(self.found.missing)} missing files" if self.found.missing else ""
        return f"{head}: {self.path}, {'there already' if self.is_there else 'to be made'}{without}"


def write(plan: Planned) -> None:
    """Make the rows and give their file its name when all of it is on the disk. Raises InvalidInput, StorageError."""
    assert plan.found is not None
    partial = partial_name(plan.path)
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8") as file:
            for row in plan.found.rows():
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
            if not file.tell():
                raise InvalidInput(f"make {plan.make.name!r}: there are no rows")
        partial.replace(plan.path)
    except OSError as error:
        raise StorageError(f"{plan.path} could not be written ({error.strerror})") from error
    finally:
        partial.unlink(missing_ok=True)


def describe(plan: Planned) -> Json:
    """What a run and its checkpoints say of the data: the table, and the file's rows and hash, or what is missing."""
    table = {"name": plan.make.name, "kind": plan.make.kind, **plan.make.fields}
    if plan.found is None:
        return {**table, "missing": plan.flaw}
    with plan.path.open("rb") as file:
        n_rows = sum(1 for _ in file)
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    without = {"missing": list(plan.found.missing)} if plan.found.missing else {}
    return {**table, **plan.found.facts, "rows_made": n_rows, "sha256_of_rows": sha256, **without}
