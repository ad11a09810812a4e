"""Documents -> samples -> packed batches. The noise of a sample is a pure function of (seed, sample index).

Suffixes: T packed rows, S selected rows.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trimode.numerics.noise import Noise, blocks, masked_slots
from trimode.numerics.visibility import Visibility, packed
from trimode.spans import Canvas, Span, layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """Tokens of one text; those from `scored` on are targets (everything before is prompt, never masked)."""

    tokens: tuple[int, ...]
    scored: int = 1

    def cut(self, n_tokens: int) -> "Document":
        return Document(tokens=self.tokens[:n_tokens], scored=min(self.scored, n_tokens))


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Row `row` of the sample should predict `label`."""

    row: int
    label: int
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A document as a span, with what its rows should predict."""

    span: Span
    ar: tuple[Target, ...]
    diffusion: tuple[Target, ...]
    n_diffusion: int  # all target positions, masked or not


def make_sample(document: Document, noise: Noise | None, mask_token_id: int, rng: random.Random) -> Sample:
    """The clean text as commits; with `noise`, one canvas per block of its targets as well.

    A block that reaches the end of the text keeps its full size, its tail masks unscored: that is what a decoder sees
    when a canvas hangs over the end of an answer.
    """
    tokens, n = document.tokens, len(document.tokens)
    ar = tuple(Target(row=i - 1, label=tokens[i], weight=1.0) for i in range(max(document.scored, 1), n))
    canvases, diffusion, row = [], [], n
    if noise is not None:
        size = rng.choice(noise.block_sizes)
        for start, stop in blocks(document.scored, n, size, rng):
            slots, weight = masked_slots(stop - start, noise, rng)
            shown = list(tokens[start:stop]) + [mask_token_id] * (size - (stop - start) if stop == n else 0)
            for slot in slots:
                shown[slot] = mask_token_id
                diffusion.append(Target(row=row + slot, label=tokens[start + slot], weight=weight))
            canvases.append(Canvas(after=start, tokens=tuple(shown)))
            row += len(shown)
    span = Span(commit=tokens, canvases=tuple(canvases), kind="prefill")
    n_diffusion = max(n - document.scored, 0) if noise is not None else 0
    return Sample(span=span, ar=ar, diffusion=tuple(diffusion), n_diffusion=n_diffusion)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Selected rows of a batch with labels and weights; `count` is what their loss is divided by."""

    rows_S: Tensor
    labels_S: Tensor
    weights_S: Tensor
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Packed samples: what the model is fed, and which rows are scored against what."""

    tokens_T: Tensor
    positions_T: Tensor
    visibility: Visibility
    ar: Rows
    diffusion: Rows


def pack(packs: Sequence[Sequence[Sample]], rows: int, mask_token_id: int) -> Batch:
    """Lay every pack of samples into one stream of `rows` rows; padding is mask tokens that nobody sees or scores."""
    tokens: list[int] = []
    positions: list[int] = []
    ar: list[Target] = []
    diffusion: list[Target] = []
    for index, samples in enumerate(packs):
        for sample in samples:
            base = len(tokens)
            spelled = layout(sample.span)
            tokens += spelled.tokens
            positions += spelled.offsets
            for targets, all_targets in ((sample.ar, ar), (sample.diffusion, diffusion)):
                all_targets.extend(Target(row=base + t.row, label=t.label, weight=t.weight) for t in targets)
        padding = (index + 1) * rows - len(tokens)
        if padding < 0:
            raise ValueError(f"a pack has {rows - padding} rows, a stream holds {rows}")
        tokens += [mask_token_id] * padding
        positions += [0] * padding
    n_diffusion = sum(sample.n_diffusion for samples in packs for sample in samples)
    return Batch(
        tokens_T=torch.tensor(tokens),
        positions_T=torch.tensor(positions),
        visibility=packed([[sample.span for sample in samples] for samples in packs], rows, torch.float32),
        ar=_rows(ar, len(ar)),
        diffusion=_rows(diffusion, n_diffusion),
    )


def _rows(targets: Sequence[Target], count: int) -> Rows:
    return Rows(
        rows_S=torch.tensor([t.row for t in targets], dtype=torch.long),
        labels_S=torch.tensor([t.label for t in targets], dtype=torch.long),
        weights_S=torch.tensor([t.weight for t in targets], dtype=torch.float32),
        count=count,
    )


def batches(
    document: Callable[[int], Document], noise: Noise | None, mask_token_id: int, *,
    seed: int, streams: int, rows: int,
) -> Iterator[Batch]:  # fmt: skip
    """Endless batches of `streams` x `rows`: sample i is a pure function of (seed, i), packed in order, first fit.

    A sample that fits no open stream closes the batch; a document too long for an empty stream is cut.
    """
    if noise is not None and rows < max(noise.block_sizes) + 2:
        raise ValueError(f"streams of {rows} rows cannot hold a text and a block of {max(noise.block_sizes)}")
    packs: list[list[Sample]] = [[] for _ in range(streams)]
    room, index, last_used = [rows] * streams, 0, 0
    while True:
        sample = _fitting(document(index), noise, mask_token_id, f"{seed}:{index}", rows)
        index += 1
        if not sample.ar:
            if index - last_used > 1000:
                raise ValueError(f"documents {last_used} to {index - 1} have no targets within {rows} rows")
            continue
        last_used = index
        place = next((i for i in range(streams) if sample.span.n_rows <= room[i]), None)
        if place is None:
            yield pack(packs, rows, mask_token_id)
            packs, room, place = [[] for _ in range(streams)], [rows] * streams, 0
        packs[place].append(sample)
        room[place] -= sample.span.n_rows


def _fitting(document: Document, noise: Noise | None, mask_token_id: int, key: str, rows: int) -> Sample:
    sample = make_sample(document, noise, mask_token_id, random.Random(key))
    while sample.span.n_rows > rows:
        document = document.cut(len(document.tokens) * 9 // 10)
        sample = make_sample(document, noise, mask_token_id, random.Random(key))
    return sample
