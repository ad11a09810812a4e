"""The raw generations of an evaluation on disk, one JSON line each as it comes, and what they were made by.

    OUT/plan.json            what a run that goes on must share with its past
    OUT/generations.jsonl    one line per (mode, task, key)

A line is whole or the last one and torn; a torn one is cut off and made again. Knows no model and no metric.
"""

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from trimode.errors import InvalidInput, StorageError

PLAN, GENERATIONS = "plan.json", "generations.jsonl"
FORMAT = 2  # of a record: a run never goes on among records of another
Record = dict[str, Any]
Name = tuple[str, str, str]  # mode, task, key


def name_of(record: Mapping[str, Any]) -> Name:
    """What a record answers."""
    return record["mode"], record["task"], record["key"]


class Records:
    """The generations in a folder: those there by name, and a file to append to. Use as `with opened(...)`."""

    def __init__(self, path: Path, file: BinaryIO, there: dict[Name, Record]) -> None:
        self.path, self._file, self.there = path, file, there

    def append(self, record: Record) -> None:
        """Write a record before the next is computed. Raises StorageError for a full disk; earlier lines stay."""
        with storing(self.path):
            self._file.write(json.dumps(record, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
            self._file.flush()
        self.there[name_of(record)] = record


@contextmanager
def opened(out: Path, facts: Mapping[str, Any], tell: Callable[[str], None]) -> Iterator[Records]:
    """The records in `out`, made if need be, for a run described by `facts` (plain JSON).

    Raises InvalidInput for a folder that another plan, checkpoint or machine has begun, with the first differences, for
    a file that is no such file, or one that another process is writing; StorageError where nothing can be written.
    """
    path = out / GENERATIONS
    with storing(out):
        out.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    try:
        hold(path, file)
        same_plan(out, facts)
        yield Records(path, file, resume(path, tell))
    finally:
        closed_quietly(file)


def hold(path: Path, file: BinaryIO) -> None:
    """Keep other processes from writing the file while this one does."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InvalidInput(f"{path} is being written by another evaluation") from None
    except OSError:  # a file system without locks
        return


def closed_quietly(file: BinaryIO) -> None:
    """Close a file whose last bytes may have found no room, which its writer has said already."""
    with suppress(OSError):
        file.close()


def same_plan(out: Path, facts: Mapping[str, Any]) -> None:
    """Write what this run is, or compare it with what began the folder."""
    path, generations = out / PLAN, out / GENERATIONS
    now = json.loads(json.dumps(facts))
    is_empty = not (generations.is_file() and generations.stat().st_size)
    if not path.exists():
        if not is_empty:
            raise InvalidInput(f"--out {out} holds {GENERATIONS} without the {PLAN} of an evaluation, choose another")
        write(path, json.dumps(now, indent=2) + "\n")
        return
    try:
        before = json.loads(path.read_text("utf-8"))
    except ValueError:
        raise InvalidInput(f"{path} is not the plan of an evaluation, choose another --out") from None
    differing = list(differences(before, now))
    if differing and is_empty and isinstance(before, dict) and before.keys() == now.keys():
        write(path, json.dumps(now, indent=2) + "\n")  # it was refused, or stopped, before its first answer
    elif differing:
        raise InvalidInput(f"--out {out} holds another evaluation: {'; '.join(differing[:3])}; choose another folder")


def differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """What two JSON values differ in, by name."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            yield from differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        yield f"its {name or 'plan'} is {_short(before)}, now it is {_short(now)}"


def resume(path: Path, tell: Callable[[str], None]) -> dict[Name, Record]:
    """The records of a file by name; a torn last line is cut off, which `tell` hears. A damaged file is refused."""
    there: dict[Name, Record] = {}
    if not path.is_file():  # a device or pipe holds nothing to go on from
        return there
    lines = path.read_bytes().splitlines(keepends=True)
    good = 0
    for number, raw in enumerate(lines, 1):
        record = _record(raw)
        if record is None:
            if number < len(lines):
                raise InvalidInput(f"{path} line {number} is not a record of an evaluation")
            os.truncate(path, good)
            tell(f"the last line of {path} was torn; it is dropped and made again")
            break
        there[name_of(record)] = record
        good += len(raw)
    return there


def write(path: Path, text: str) -> None:
    """A file that is whole or as it was. Raises StorageError for a full disk."""
    aside = path.with_name(f".{path.name}.partial")
    with storing(path):
        aside.write_text(text, "utf-8")
        aside.replace(path)


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Errors of the file system as one sentence."""
    try:
        yield
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise StorageError(f"{path} could not be written, {reason}; what is there is kept") from error


def _record(raw: bytes) -> Record | None:
    """A line, None if it is not a whole record."""
    try:
        record: Any = json.loads(raw)
        name_of(record)
    except (ValueError, KeyError, TypeError):
        return None
    return record if raw.endswith(b"\n") else None


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
