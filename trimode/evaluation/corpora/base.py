"""The nouns of data that a recipe has made: a kind of rows, where it finds what it reads, and what it has found.

A kind is a frozen dataclass: its fields are those of its [[data.make]] table.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from trimode.config import Json
from trimode.errors import InvalidInput
from trimode.tokenizer import Tokenizer

Row = dict[str, Any]  # {"text"}, {"prompt", "completion"}, {"messages"} or {"prefix", "middle", "suffix"}


class Missing(InvalidInput):
    """A file that rows are made of is not there, or is not the one that the recipe means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where kinds look: the model's tokenizer, the interpreter's standard library, a folder of public data sets."""

    tokenizer: Callable[[], Tokenizer]
    library: Path
    data: Path
    skip_missing: bool = False  # do without some of many files; whole kinds are for the caller to skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a kind has found, without having made a row.

    `inputs` is what the rows depend on beside the table and trimode's code; `facts` is what a model's card should
    say beside the table; `missing` names what the rows go without.
    """

    rows: Callable[[], Iterable[Row]]
    inputs: Json
    facts: Json
    missing: tuple[str, ...] = ()


class Kind(Protocol):
    """One kind of rows. `split` says which split of its source the rows come from: training may read "train" alone."""

    @property
    def split(self) -> str: ...
    def find(self, sources: Sources) -> Found:
        """Look for what the rows are made of. Raises Missing."""
        ...


def chat(question: str, answer: str) -> Row:
    """One turn of each."""
    turns = (("user", question), ("assistant", answer))
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


def digest(files: Iterable[Path]) -> str:
    """sha256 of what files hold, in the order of their names."""
    whole = hashlib.sha256()
    for file in sorted(files):
        whole.update(hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()


def repeated(rows: Iterable[Row], times: int) -> Iterator[Row]:
    """All rows, so many times over: the way to give a small source more weight."""
    kept = list(rows)
    for _ in range(times):
        yield from kept
