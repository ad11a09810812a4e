"""Corpus -> the batches of every step, as pure functions of (seed, step): nothing to save, nothing to skip on resume.

Epoch after epoch the documents are put into an order of their own and packed; the packs of all epochs, one after the
other, are an endless row, and step s takes those from s * streams on. Ranks and micro-batches are slices of a step, so
every split of the work sees the same samples with the same noise.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from trimode.errors import InvalidInput
from trimode.numerics.noise import Noise
from trimode.numerics.packed import Attention
from trimode.training.batch import Batch, pack
from trimode.training.corpora import Corpus, Integers, Windows
from trimode.training.documents import Special
from trimode.training.samples import Sample, check, make_sample, most_rows
from trimode.training.sources import BadRow, BadRows

OPEN = 16  # packs that are filled at the same time
KEPT = 2  # plans in memory: a step may reach from one epoch into the next


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One epoch: pack p holds documents[starts[p] : starts[p + 1]]."""

    documents: Integers
    starts: Integers

    @property
    def n_packs(self) -> int:
        return len(self.starts) - 1


class Feed:
    """`streams` packs of `rows` rows a step. Documents must fit: see `fitted`.

    Which epoch a step lies in follows from the numbers of packs of all epochs before it, so a run resumed in its tenth
    epoch plans ten.
    """

    def __init__(
        self, corpus: Corpus, noise: Noise | None, special: Special, *,
        seed: int, rows: int, streams: int, attention: Attention = "split",
    ) -> None:  # fmt: skip
        check(noise, special)
        for name, value, low in (("seed", seed, 0), ("rows", rows, 2), ("streams", streams, 1)):
            if value < low:
                raise InvalidInput(f"{name} is {value}, allowed is at least {low}")
        if not len(corpus):
            raise InvalidInput("there is no document to train on")
        self.corpus, self.noise, self.special = corpus, noise, special
        self.seed, self.rows, self.streams, self.attention = seed, rows, streams, attention
        self._rows_of = rows_of(corpus, noise)
        widest = int(self._rows_of.argmax())
        if self._rows_of[widest] > rows:
            need = f"{corpus.place(widest)} may take {self._rows_of[widest]} rows"
            raise InvalidInput(f"{need}, a stream has {rows}: allow more rows or fewer tokens (max_tokens)")
        self._plans: dict[int, Plan] = {}
        self._firsts = [0]  # the first pack of every epoch that was counted, and of the next

    def batches(self, step: int, *, rank: int = 0, world: int = 1, micro: int = 1) -> list[Batch]:
        """This rank's micro-batches of a step, `micro` streams each; in order over all ranks they are the step."""
        if not 0 <= rank < world:
            raise InvalidInput(f"rank is {rank}, allowed is 0 to {world - 1}")
        if micro < 1 or self.streams % (world * micro):
            why = f"{world} processes with {micro} streams at a time"
            raise InvalidInput(f"streams is {self.streams}, allowed are multiples of {world * micro} ({why})")
        share = self.streams // world
        first = step * self.streams + rank * share
        return [
            pack(
                [self._samples(p) for p in range(at, at + micro)], self.rows, self.special.mask_token_id, self.attention
            )
            for at in range(first, first + share, micro)
        ]

    def epoch(self, step: int) -> float:
        """Passes over the corpus before this step, the last one in parts."""
        epoch, number = self._located(step * self.streams)
        return epoch + number / (self._firsts[epoch + 1] - self._firsts[epoch])

    def samples(self, step: int) -> tuple[int, ...]:
        """Global numbers of a step's samples, in the order of its rows: epoch * documents + index."""
        return tuple(number for _, _, number in self._members(step))

    def places(self, step: int) -> tuple[str, ...]:
        """Where the documents of a step come from, as `samples`."""
        return tuple(self.corpus.place(index) for _, index, _ in self._members(step))

    def padding(self, step: int) -> float:
        """Share of a step's rows that hold nothing. It makes all samples of the step: for a look now and then."""
        packs = range(step * self.streams, (step + 1) * self.streams)
        used = sum(sample.span.n_rows for number in packs for sample in self._samples(number))
        return 1 - used / (self.streams * self.rows)

    def plan(self, epoch: int) -> Plan:
        """What an epoch packs together, a function of (seed, epoch) alone."""
        if epoch not in self._plans:
            order = shuffled(len(self.corpus), self.seed, epoch)
            pack_of = packed_first_fit(self._rows_of[order].tolist(), self.rows)
            counts = np.bincount(pack_of)
            starts = np.concatenate([[0], np.cumsum(counts)])
            while len(self._plans) >= KEPT:
                del self._plans[next(iter(self._plans))]
            self._plans[epoch] = Plan(documents=order[np.argsort(pack_of, kind="stable")], starts=starts)
        return self._plans[epoch]

    def _located(self, number: int) -> tuple[int, int]:
        """Epoch, and number within it, of a pack of the endless row."""
        while self._firsts[-1] <= number:
            self._firsts.append(self._firsts[-1] + self.plan(len(self._firsts) - 1).n_packs)
        epoch = int(np.searchsorted(self._firsts, number, "right")) - 1
        return epoch, number - self._firsts[epoch]

    def _pack(self, number: int) -> Iterator[tuple[int, int, int]]:
        """Epoch, index and global number of every document of a pack."""
        epoch, within = self._located(number)
        plan = self.plan(epoch)
        for index in plan.documents[plan.starts[within] : plan.starts[within + 1]].tolist():
            yield epoch, index, epoch * len(self.corpus) + index

    def _members(self, step: int) -> Iterator[tuple[int, int, int]]:
        for number in range(step * self.streams, (step + 1) * self.streams):
            yield from self._pack(number)

    def _samples(self, number: int) -> list[Sample]:
        return [
            make_sample(self.corpus.document(index), self.noise, self.special, f"{self.seed}:{epoch}:{index}", sample)
            for epoch, index, sample in self._pack(number)
        ]


def fitted(
    whole: Corpus, noise: Noise | None, *, rows: int, max_tokens: int | None = None, strict: bool = False
) -> tuple[Windows, BadRows]:
    """The corpus for streams of `rows` rows, plain texts cut into windows of at most `max_tokens` (None: as many as
    fit), and what had to be left out because it is too long and cannot be cut."""
    longest = longest_text(noise, rows)
    max_tokens = rows if max_tokens is None else max_tokens
    needed, sizes = rows_of(whole, noise), whole.sizes()
    windows = Windows(whole, min(max_tokens, longest), (sizes[:, 0] <= max_tokens) & (needed <= rows))
    bad = BadRows(strict=strict)
    for index in windows.too_long.tolist():
        detail = f"{sizes[index, 0]} tokens that may take {needed[index]} rows, allowed are {max_tokens} and {rows}"
        bad.add(BadRow(place=whole.place(index), reason="too long", detail=detail))
    if not len(windows):
        raise InvalidInput(f"no document fits into {max_tokens} tokens and {rows} rows\n{bad}".rstrip())
    return windows, bad


def longest_text(noise: Noise | None, rows: int) -> int:
    """Tokens of the longest plain text that fits a stream whatever its noise."""
    low, high = 1, rows + 1  # `low` fits, or is too short to be a text; `high` does not fit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if most_rows(middle, middle - 1, 1, noise) <= rows else (low, middle)
    if low < 2:
        raise InvalidInput(f"rows is {rows}, allowed is at least {most_rows(2, 1, 1, noise)}: two tokens and a canvas")
    return low


def rows_of(corpus: Corpus, noise: Noise | None) -> Integers:
    """[n]: rows to reserve for every document."""
    return np.array(
        [most_rows(n, targets, answers, noise) for n, targets, answers in corpus.sizes().tolist()], np.int64
    )


def shuffled(n: int, seed: int, epoch: int) -> Integers:
    """An order of range(n): sorted by raw words of PCG64, which are the same in all versions of numpy."""
    words = np.random.PCG64(np.random.SeedSequence([seed, epoch])).random_raw(n)
    return np.argsort(words, kind="stable")


def packed_first_fit(sizes: Sequence[int], rows: int) -> Integers:
    """[n]: the pack of every document. Each goes into the first of `OPEN` packs with room for it; where there is none,
    the fullest is closed for a new one. None is larger than `rows`."""
    room, names, found, n_packs = [0] * OPEN, [-1] * OPEN, [], 0
    for size in sizes:
        at = _first(room, size)
        if at is None:
            at = n_packs if n_packs < OPEN else room.index(min(room))
            names[at], room[at] = n_packs, rows
            n_packs += 1
        room[at] -= size
        found.append(names[at])
    return np.array(found, np.int64)


def _first(room: Sequence[int], size: int) -> int | None:
    for at, free in enumerate(room):
        if size <= free:
            return at
    return None
