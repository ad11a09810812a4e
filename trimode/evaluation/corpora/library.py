"""Rows from Python source of the standard library: whole files, and holes in them.

Which files these are, with their hashes and splits, stands in a committed listing (recipes/stdlib_files.json).
"""

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile
from pathlib import Path

from trimode.errors import InvalidInput
from trimode.evaluation.corpora.base import Found, Missing, Row, Sources, digest, repeated
from trimode.evaluation.corpora.procedural import SPLITS
from trimode.options import check_options, option
from trimode.training.corpus import differs, find_listed, licence

LINES = (1, 1, 1, 2, 3, 4)  # of a hole, each as likely
PART = 0.5  # share of holes of one line that are a part of it
MOST = 240  # characters of a hole
TRIES = 1_000  # places looked at for one


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """Every n-th file of a split as a text."""

    listing: Path
    split: str = option("train", "of the files", choices=SPLITS)
    every: int = option(1, "take one file out of so many", low=1)
    repeat: int = option(1, "times every row is written", low=1)

    def __post_init__(self) -> None:
        check_options(self)

    def find(self, sources: Sources) -> Found:
        found, texts = _listed(self.listing, self.split, sources)
        taken = texts[:: self.every]
        return Found(
            rows=lambda: repeated(({"text": text} for text in taken), self.repeat),
            inputs=found.inputs, facts=found.facts, missing=found.missing,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Holes:
    """Lines, and parts of lines, to be filled in between what stands before and behind them."""

    listing: Path
    rows: int = option(10_000, "how many", low=1)
    seed: int = option(0, "of the places", low=0)
    split: str = option("train", "of the files", choices=SPLITS)
    context: int = option(320, "characters on each side, at most", low=1)

    def __post_init__(self) -> None:
        check_options(self)

    def find(self, sources: Sources) -> Found:
        found, texts = _listed(self.listing, self.split, sources)
        return Found(rows=lambda: self.make(texts), inputs=found.inputs, facts=found.facts, missing=found.missing)

    def make(self, texts: Sequence[str]) -> Iterator[Row]:
        lines = [re.findall(r".*\n|.+\Z", text) for text in texts if text]  # splitlines knows more ends of lines
        return (self.row(index, lines) for index in range(self.rows))

    def row(self, index: int, files: Sequence[Sequence[str]]) -> Row:
        """A pure function of (seed, index) and the files, which are lines with their ends, at least one."""
        rng = random.Random(f"hole/{self.seed}/{index}")
        for _ in range(TRIES if files else 0):
            lines = rng.choice(files)
            first = rng.randrange(len(lines))
            row = hole(lines, first, min(first + rng.choice(LINES), len(lines)), rng, self.context)
            if row is not None:
                return row
        raise InvalidInput(f"{self.listing}: the files of split {self.split!r} have no lines to be filled in")


def hole(lines: Sequence[str], first: int, last: int, rng: random.Random, context: int) -> Row | None:
    """The lines [first, last) as a hole, without the blank ones at their end; of one line sometimes a part.

    None: nothing worth filling in. Both sides hold whole lines, but for the one that a part is cut out of; the last
    line's end is no part of the hole.
    """
    while last > first and not lines[last - 1].strip():
        last -= 1
    middle = "".join(lines[first:last]).removesuffix("\n")
    words = middle.strip()
    if first == last or not lines[first].strip() or len(middle) > MOST:
        return None
    ending = "\n" if lines[last - 1].endswith("\n") else ""
    before, behind = _last(lines[:first], context), ending + _first(lines[last:], context)
    if last - first == 1 and len(words) > 1 and rng.random() < PART:
        indent = len(middle) - len(middle.lstrip())
        start, stop = sorted(rng.sample(range(len(words) + 1), 2))
        before, behind = before + middle[: indent + start], middle[indent + stop :] + behind
        middle = middle[indent + start : indent + stop]
    return {"prefix": before, "middle": middle, "suffix": behind} if middle.strip() else None


def _last(lines: Sequence[str], most: int) -> str:
    """The last lines that together have at most so many characters."""
    return "".join(lines[len(lines) - _fitting(reversed(lines), most) :])


def _first(lines: Sequence[str], most: int) -> str:
    return "".join(lines[: _fitting(lines, most)])


def _fitting(lines: Iterable[str], most: int) -> int:
    """How many of the first lines have together at most so many characters."""
    return sum(1 for _ in takewhile(lambda size: size <= most, accumulate(map(len, lines))))


def _listed(listing: Path, split: str, sources: Sources) -> tuple[Found, list[str]]:
    """The texts of a split, with what is to be said of them."""
    texts, strangers = find_listed(listing, sources.library, split)
    if strangers and not sources.skip_missing:
        raise Missing(differs(strangers[0], listing))
    if not texts:
        raise Missing(f"{sources.library} has none of the files of {listing.name}")
    inputs = {"listing": digest([listing]), "without": [str(path) for path in strangers]}
    names = tuple(path.relative_to(sources.library).as_posix() for path in strangers)
    return Found(rows=tuple, inputs=inputs, facts={"licence": licence(listing)}, missing=names), texts
