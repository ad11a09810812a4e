"""Documents -> samples: a span and what its rows should predict. Pure; knows no model and no batch."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from trimode.errors import InvalidInput
from trimode.numerics.noise import INFILL, Noise, blocks, first_width, infill, level, masks
from trimode.spans import Canvas, Span
from trimode.training.documents import Document, Special

ALIGNED = 0.5  # share of answers whose first block starts with the answer and is whole
RESERVED = 32  # tokens of suffix that a hole's canvas keeps room for


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Row `row` of the sample should predict `label`."""

    row: int
    label: int
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A document as a span, with what its rows should predict. `index` is its global number, for messages."""

    span: Span
    ar: tuple[Target, ...]
    diffusion: tuple[Target, ...]
    n_diffusion: int  # all target positions that a row can name, masked or not, once each
    index: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Where a canvas stands: targets [start, stop), then clean text up to `end`, then `tail` masks nobody scores."""

    start: int
    stop: int
    end: int
    tail: int = 0


def check(noise: Noise | None, special: Special) -> None:
    """Refuse noise that these ids cannot spell."""
    if noise is not None and noise.suffix_first_share > 0 and special.fim is None:
        raise InvalidInput("suffix_first_share needs the ids of the prefix, suffix and middle markers (fim)")


def make_sample(document: Document, noise: Noise | None, special: Special, key: str, index: int = 0) -> Sample:
    """The clean text as commits; with `noise`, canvases over its targets as well. A pure function of its arguments."""
    return draw_sample(document, noise, special, random.Random(key), index)


def draw_sample(
    document: Document, noise: Noise | None, special: Special, rng: random.Random, index: int = 0
) -> Sample:
    """As `make_sample`; takes what it draws from `rng`, in a fixed order."""
    check(noise, special)
    if noise is not None:
        document, noise = _arranged(document, noise, special, rng)
    # What stands behind a hole is seen in its canvas; as a commit nobody would look at it.
    commit = document.tokens if document.hole is None else document.tokens[: document.hole[1]]
    canvases, diffusion = ([], []) if noise is None else _canvases(document, noise, special, rng, len(commit))
    return Sample(
        span=Span(commit=commit, canvases=tuple(canvases), kind="prefill"),
        ar=tuple(
            Target(row=i - 1, label=commit[i], weight=1.0)
            for start, stop in document.answers for i in range(max(start, 1), stop)
        ),
        diffusion=tuple(diffusion), n_diffusion=0 if noise is None else _named(document, special), index=index,
    )  # fmt: skip


def _named(document: Document, special: Special) -> int:
    """Targets of the canvases. Where the row before a slot names it, nothing names the first token of a text."""
    return document.n_targets - (special.shifted and any(start == 0 < stop for start, stop in document.answers))


def most_rows(n_tokens: int, n_targets: int, n_answers: int, noise: Noise | None) -> int:
    """No sample of a document of this size has more rows, whatever is drawn."""
    if noise is None:
        return n_tokens
    if noise.suffix_first_share > 0:
        n_tokens, n_targets = n_tokens + 4, n_targets + 2  # markers and end of text; the first token as a target
    per_view = n_targets + n_answers * (max(noise.block_sizes) - 1) + _spare(n_targets, noise)
    return n_tokens + noise.views * per_view + noise.views - 1  # half a suffix, rounded up, in both views


def _spare(n_targets: int, noise: Noise) -> int:
    """Suffix rows that the infill canvases of a sample may have in all, so that `most_rows` stays close to the rest."""
    return min(int(noise.infill_share * n_targets) + RESERVED, n_targets) if noise.infill_share else 0


def _arranged(document: Document, noise: Noise, special: Special, rng: random.Random) -> tuple[Document, Noise]:
    """The document, or its suffix-first layout, which has blocks but no infill canvases."""
    n_written = len(document.tokens) - (document.tokens[-1:] == (special.eos_token_id,))
    middle: tuple[int, ...] | None = None
    if document.hole is not None and noise.suffix_first_share > 0:
        middle = document.hole if rng.random() < 0.5 else None
    elif document.is_text and document.n_targets and n_written and rng.random() < noise.suffix_first_share:
        middle = tuple(sorted(rng.sample(range(n_written + 1), 2)))
    if middle is None:
        return document, noise
    start, stop = middle
    return document.suffix_first(start, stop, special), replace(noise, infill_share=0.0)


def _canvases(
    document: Document, noise: Noise, special: Special, rng: random.Random, row: int
) -> tuple[list[Canvas], list[Target]]:
    """One canvas per piece and view, with its masked targets; the first starts at `row`.

    A slot is named by its own row or, where they are shifted, by the row before it: slot 0 by the last commit it sees.
    """
    canvases, diffusion = [], []
    share = level(noise, rng)
    for piece in _pieces(document, noise, rng):
        for slots, weight in masks(piece.stop - piece.start, noise, rng, share):
            shown = [*document.tokens[piece.start : piece.end], *[special.mask_token_id] * piece.tail]
            for slot in slots:
                named_by = row + slot
                if special.shifted:
                    named_by = row + slot - 1 if slot else piece.start - 1
                if named_by >= 0:
                    diffusion.append(Target(row=named_by, label=shown[slot], weight=weight))
                shown[slot] = special.mask_token_id
            canvases.append(Canvas(after=piece.start, tokens=tuple(shown), draft=noise.drafts, shifted=special.shifted))
            row += len(shown)
    return canvases, diffusion


def _pieces(document: Document, noise: Noise, rng: random.Random) -> Iterator[Piece]:
    """Every target in exactly one piece.

    A block that reaches the end of its answer keeps its full size, its tail masks unscored: that is what a decoder sees
    when a canvas hangs over the end.
    """
    size = rng.choice(noise.block_sizes)
    hole = document.hole
    if hole is not None and hole[0] < hole[1] < len(document.tokens) and not noise.drafts:
        yield from _around(document, hole, size, noise.views, rng)
        return
    spare = _spare(document.n_targets, noise)
    for first, last in document.answers:
        edge, width = first, first_width(size, rng, 0.0 if document.is_text else ALIGNED)
        while edge < last:
            if spare and last - edge >= INFILL[0] and rng.random() < noise.infill_share:
                stop, end = infill(edge, last, spare, rng)
                piece = Piece(start=edge, stop=stop, end=end)
                spare -= end - stop
            else:
                stop = min(edge + width, last)
                piece = Piece(start=edge, stop=stop, end=stop, tail=size - (stop - edge) if stop == last else 0)
            yield piece
            edge, width = piece.stop, size


def _around(document: Document, hole: tuple[int, int], size: int, views: int, rng: random.Random) -> Iterator[Piece]:
    """The hole, what does not fit into one canvas as blocks first, and as much of its suffix as the canvas holds.

    With two views the suffix is halved: its two copies take no more rows than committing all of it would.
    """
    start, stop = hole
    suffix = -((stop - len(document.tokens)) // views)
    first = max(start, stop + min(suffix, RESERVED) - INFILL[1])
    for a, b in blocks(start, first, size, rng, ALIGNED):
        yield Piece(start=a, stop=b, end=b)
    yield Piece(start=first, stop=stop, end=min(stop + suffix, first + INFILL[1]))
