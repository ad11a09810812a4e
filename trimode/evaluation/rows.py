"""Rows of published data files, checked as they are read, and the choice of some of them. Knows no suite."""

import gzip
import json
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from trimode.errors import InvalidInput

T = TypeVar("T")
Row = dict[str, Any]


def rows(data_dir: Path | None, file: str, fields: Mapping[str, type]) -> list[Row]:
    """The JSON objects of `file`, one per line, .gz or not, each with all of `fields`.

    Raises InvalidInput with file, line and --data-dir where one is missing or damaged.
    """
    if data_dir is None:
        raise InvalidInput(f"{file} is needed: --data-dir names the folder that holds it")
    path = data_dir / file
    if not path.is_file():
        raise InvalidInput(f"{path} is missing: --data-dir names the folder that holds {file}")
    found = [_row(path, number, line, fields) for number, line in enumerate(_lines(path), 1) if line.strip()]
    if not found:
        raise InvalidInput(f"{path} holds no row: --data-dir names the folder that holds {file}")
    return found


def _lines(path: Path) -> list[bytes]:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).split(b"\n")
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidInput(f"{path} of --data-dir cannot be read: {error}") from error


def _row(path: Path, number: int, line: bytes, fields: Mapping[str, type]) -> Row:
    where = f"{path}, line {number} (--data-dir)"
    try:
        row = json.loads(line)
    except ValueError as error:  # damaged UTF-8 too
        raise InvalidInput(f"{where}: not JSON ({error})") from error
    if not isinstance(row, dict):
        raise InvalidInput(f"{where}: a JSON object is expected")
    for name, kind in fields.items():
        if not isinstance(row.get(name), kind) or isinstance(row[name], bool):
            raise InvalidInput(f"{where}: {name} is {row.get(name)!r:.40}, a {kind.__name__} is expected")
    return row


def chosen(items: Sequence[T], limit: int | None, seed: int, group: Callable[[T], str] = lambda _: "") -> list[T]:
    """`limit` items drawn by `seed`, as evenly from all groups as can be, in their old order; all of them for None."""
    if limit is None or limit >= len(items):
        return list(items)
    rng, groups = random.Random(seed), dict[str, list[int]]()
    for index, item in enumerate(items):
        groups.setdefault(group(item), []).append(index)
    turns = [
        (turn, place, index)
        for place, members in enumerate(groups.values())
        for turn, index in enumerate(rng.sample(members, len(members)))
    ]
    return [items[index] for index in sorted(index for _, _, index in sorted(turns)[:limit])]
