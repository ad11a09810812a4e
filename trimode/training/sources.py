"""Local JSONL and Parquet files -> rows with their place, and the rows that are no rows. Knows no tokenizer.

Files are read by the `datasets` library, streaming, and nothing goes over the network: its `load_dataset` counts
downloads at a server even for local files, its readers do not. Of its JSON reader a single broken line loses the chunk
of megabytes around it, without a number; so JSONL goes through its text reader, whose rows are lines, and every line is
judged alone. Latin-1 takes every byte for a character, so that not even a line of broken UTF-8 hurts its neighbours.
"""

import gzip
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from glob import escape, glob
from importlib import import_module
from pathlib import Path
from typing import Any

from trimode.errors import InvalidInput

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
SHAPES = (("messages",), ("prefix", "middle", "suffix"), ("prompt", "completion"), ("text",))
SHOWN = 10  # bad rows reported in full
BATCH = 1000  # rows of Parquet in hand at once


class Unusable(Exception):
    """This row cannot be trained on: a reason to count, and what is the matter with it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """A row left out. `place` is file:line; lines count from 1, and in Parquet they are rows."""

    place: str
    reason: str
    detail: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason} ({self.detail})"


@dataclass(slots=True, kw_only=True)
class BadRows:
    """Rows left out, counted by reason, the first ones in full. `strict` makes the first an error."""

    strict: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    first: list[BadRow] = field(default_factory=list)

    def add(self, row: BadRow) -> None:
        if self.strict:
            raise InvalidInput(f"{row}; without strict such rows are left out and counted")
        self.counts[row.reason] += 1
        if len(self.first) < SHOWN:
            self.first.append(row)

    def __str__(self) -> str:
        """`3 rows left out: 2 empty, 1 not JSON`, then the first of them, one a line; empty when there are none."""
        if not self.counts:
            return ""
        total, reasons = sum(self.counts.values()), sorted(self.counts.items())
        head = f"{total} rows left out: " + ", ".join(f"{n} {reason}" for reason, n in reasons)
        more = [f"  and {total - len(self.first)} more"] if total > len(self.first) else []
        return "\n".join([head, *(f"  {row}" for row in self.first), *more])


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row as it was found: its fields, or why there are none."""

    line: int
    fields: Any


def find_files(patterns: Sequence[str]) -> tuple[Path, ...]:
    """The files that the globs name (`**` reaches into folders), each once, sorted."""
    found: set[Path] = set()
    for pattern in patterns:
        files = {Path(match) for match in glob(pattern, recursive=True) if Path(match).is_file()}
        if Path(pattern).is_file():  # a name that happens to hold a * or a [
            files.add(Path(pattern))
        if not files:
            raise InvalidInput(f"data: no file matches {pattern}")
        found |= files
    for file in sorted(found):
        if not file.name.endswith(SUFFIXES):
            raise InvalidInput(f"{file}: allowed are files that end in {', '.join(SUFFIXES)}")
    return tuple(sorted(found))


def read_rows(file: Path) -> Iterator[Row]:
    """Every row of a file with its number, blank lines left out; of a broken one the fields are an `Unusable`."""
    try:
        if file.suffix == ".parquet":
            yield from _parquet(file)
            return
        for line, raw in enumerate(_gzip_lines(file) if file.suffix == ".gz" else _lines(file), 1):
            if raw.strip():
                yield Row(line=line, fields=_parsed(raw))
    except InvalidInput:
        raise
    except Exception as error:  # a damaged file shows in any way, in the middle too
        raise InvalidInput(f"{file}: this file cannot be read ({' '.join(str(error).split())})") from error


def texts(fields: Any) -> tuple[str, dict[str, Any]]:
    """What a row is, by the fields it has (nulls count as absent): the name of its shape and its values, checked.

    Raises Unusable.
    """
    if isinstance(fields, Unusable):
        raise fields
    if not isinstance(fields, dict):
        raise Unusable("wrong type", f"a row is an object, not {_kind(fields)}")
    given = {name for name, value in fields.items() if value is not None}
    shape = next((names for names in SHAPES if given.issuperset(names)), None)
    if shape is None:
        allowed = " or ".join("+".join(names) for names in SHAPES)
        raise Unusable("missing field", f"needed is {allowed}, given is {', '.join(sorted(given)) or 'nothing'}")
    if shape != ("messages",):
        for name in shape:
            if not isinstance(fields[name], str):
                raise Unusable("wrong type", f"{name} is {_kind(fields[name])}, not a text")
    return shape[0], {name: fields[name] for name in shape}


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return Unusable("not UTF-8", f"byte {error.start + 1} of the line is {raw[error.start]:#04x}")
    except json.JSONDecodeError as error:
        return Unusable("not JSON", f"{error.msg} at character {error.colno}")
    except (RecursionError, ValueError) as error:  # nested thousands deep; an integer of thousands of digits
        return Unusable("not JSON", str(error))


def _lines(file: Path) -> Iterator[bytes]:
    for row in _opened(file, "from_text", encoding="latin-1"):
        yield row["text"].encode("latin-1")


def _gzip_lines(file: Path) -> Iterator[bytes]:
    """Unpacked here, because `datasets` reads packed text as UTF-8 whatever encoding it is told."""
    with gzip.open(file) as stream:
        yield from stream


def _parquet(file: Path) -> Iterator[Row]:
    line = 0
    for table in _opened(file, "from_parquet").with_format("arrow").iter(batch_size=BATCH):
        for fields in _table_rows(table):
            line += 1
            yield Row(line=line, fields=fields)


def _table_rows(table: Any) -> Iterable[Any]:
    try:
        return table.to_pylist()  # type: ignore[no-any-return]
    except UnicodeDecodeError:
        return [_table_row(table.slice(i, 1)) for i in range(table.num_rows)]


def _table_row(table: Any) -> Any:
    try:
        return table.to_pylist()[0]
    except UnicodeDecodeError as error:
        return Unusable("not UTF-8", f"byte {error.start + 1} of a text is {error.object[error.start]:#04x}")


def _opened(file: Path, reader: str, **options: Any) -> Any:
    """The streaming dataset of one file. The library takes a name for a pattern, and leaves lock files behind."""
    try:
        datasets = import_module("datasets")
    except ImportError as error:
        raise InvalidInput("reading data needs the datasets library: pip install 'trimode[train]'") from error
    with tempfile.TemporaryDirectory() as locks:
        read = getattr(datasets.Dataset, reader)
        return read(escape(str(file.resolve())), streaming=True, cache_dir=locks, **options)


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
