"""Folders that are complete or absent, written by one process or by many. Knows files, not what is in them.

A folder is filled under a temporary name, brought to the disk, and renamed: the final name stands for all of it.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import torch.distributed as dist

T = TypeVar("T")


def is_spread() -> bool:
    """Whether this process is one of a group."""
    return dist.is_available() and dist.is_initialized()


def is_first() -> bool:
    """Whether this process is the one that writes what is written once."""
    return not is_spread() or dist.get_rank() == 0


def by_first(work: Callable[[], T]) -> T:
    """What `work` gives in the first process, or the error it raises there, in every process. Collective."""
    if not is_spread():
        return work()
    box: list[Any] = [None, None]
    if is_first():
        try:
            box[0] = work()
        except Exception as error:
            box[1] = error
    dist.broadcast_object_list(box, src=0)
    if box[1] is not None:
        raise box[1]
    return cast(T, box[0])


def in_step(read: Callable[[str], T]) -> Callable[[str], T]:
    """A collective reading in which all learn, before each item, whether the first process is still with them."""

    def checked(name: str) -> T:
        by_first(lambda: None)
        return read(name)

    return checked


def led_by_first(work: Callable[[], None]) -> None:
    """Work of all processes, in step, that may fail in the first: then it ends in all with that error. Collective."""
    failure: list[Exception] = []
    try:
        work()
    except Exception as error:
        if not is_first():
            raise
        failure.append(error)

    def tell() -> None:
        if failure:
            raise failure[0]

    by_first(tell)


def partial_name(final: Path) -> Path:
    """The name of a folder while it is being filled."""
    return final.with_name(f".{final.name}.tmp")


def clear(folder: Path, pattern: str) -> None:
    """Remove what interrupted writers left: everything of that name, temporary names only."""
    for path in folder.glob(f".{pattern}.tmp"):
        shutil.rmtree(path)


def settle(partial: Path, final: Path) -> None:
    """Bring a filled folder to the disk, then give it its final name; what stood there before goes."""
    for path in (*partial.rglob("*"), partial):
        _sync(path)
    if final.exists():
        old = final.with_name(f".{final.name}-old.tmp")
        shutil.rmtree(old, ignore_errors=True)  # of an interruption between the two renamings
        final.rename(old)
        partial.rename(final)
        shutil.rmtree(old)
    else:
        partial.rename(final)
    _sync(final.parent)


def remove(folder: Path) -> None:
    """Delete a folder so that an interruption leaves a temporary name behind, never half a folder."""
    partial = partial_name(folder)
    folder.rename(partial)
    shutil.rmtree(partial)


def write_json(path: Path, value: Any) -> None:
    """One JSON value, indented."""
    path.write_text(json.dumps(value, indent=2) + "\n", "utf-8")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
