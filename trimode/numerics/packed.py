"""The rule for training: packs of whole spans, without caches, in three forms that mean the same.

dense   one mask of all rows by all rows: the definition, slow for long texts.
split   the committed text of a document by causal attention without a mask; its canvases some 256 rows at a time, whose
        keys are the text before the last of them and they themselves. Masks are small, and little unseen is computed.
flex    one FlexAttention mask, which skips tiles that nobody sees; its backward pass exists on CUDA only.

Knows spans, not what they should predict. Rows that no span fills are padding, which sees itself.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from trimode.errors import InvalidInput
from trimode.numerics.flex import block_mask
from trimode.numerics.visibility import Stream, seen, visible
from trimode.spans import Span, layout

Attention = Literal["auto", "split", "dense", "flex"]
CHUNK = 256  # rows of a masked stream, about: smaller ones spend their time between kernels, larger ones on hidden keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """Every pack stands in `rows` packed rows, its spans one after the other, then padding. "auto": flex on CUDA, else
    split."""

    packs: tuple[tuple[Span, ...], ...]
    rows: int
    attention: Attention

    def __post_init__(self) -> None:
        if self.attention not in get_args(Attention):
            raise InvalidInput(f"attention is {self.attention!r}, allowed are {', '.join(get_args(Attention))}")

    def streams(self, dtype: torch.dtype, device: torch.device) -> tuple[Stream, ...]:
        form = self.attention
        if form == "auto":
            form = "flex" if device.type == "cuda" else "split"
        return tuple(_FORMS[form](self, dtype, device))

    @property
    def draft_rows(self) -> tuple[int, ...]:
        drafts: list[int] = []
        for index, spans in enumerate(self.packs):
            flags = (is_draft for span in spans for is_draft in layout(span).drafts)
            drafts += [index * self.rows + row for row, is_draft in enumerate(flags) if is_draft]
        return tuple(drafts)


def packed(packs: Sequence[Sequence[Span]], rows: int, attention: Attention = "split") -> Packed:
    """The rule for packs of spans of at most `rows` rows each."""
    return Packed(packs=tuple(tuple(spans) for spans in packs), rows=rows, attention=attention)


def _dense(given: Packed, dtype: torch.dtype, device: torch.device) -> Iterator[Stream]:
    """Every pack a stream of all its rows."""
    sees = torch.zeros(len(given.packs), 1, given.rows, given.rows, dtype=torch.bool)
    for index, spans in enumerate(given.packs):
        matrix = visible(spans)
        n = len(matrix)
        sees[index, 0, :n, :n] = matrix
        sees[index, 0].diagonal()[n:] = True
    yield Stream(start=0, count=len(given.packs), rows=given.rows, past=0, bias_NQK=_bias(sees, dtype, device))


def _split(given: Packed, dtype: torch.dtype, device: torch.device) -> Iterator[Stream]:
    """Streams of one document each, or of several short neighbours; every row of padding alone."""
    for index, spans in enumerate(given.packs):
        row = index * given.rows
        for group in _neighbours(spans):
            n = sum(span.n_rows for span in group)
            if len(group) == 1 and (n > CHUNK or not group[0].canvases):
                yield from _document(group[0], row, dtype, device)
            else:
                bias = _bias(visible(group)[None, None], dtype, device)
                yield Stream(start=row, count=1, rows=n, past=0, bias_NQK=bias)
            row += n
        padding = (index + 1) * given.rows - row
        if padding:
            yield Stream(start=row, count=padding, rows=1, past=0, bias_NQK=None)


def _flex(given: Packed, dtype: torch.dtype, device: torch.device) -> Iterator[Stream]:
    """Every pack a stream of all its rows, whose mask says for every row what it sees: two ranges of rows."""
    ranges = np.zeros((4, len(given.packs), given.rows), dtype=np.int32)
    ranges[2] = np.arange(given.rows)
    ranges[3] = ranges[2] + 1
    for index, spans in enumerate(given.packs):
        row = 0
        for span in spans:
            part = layout(span)
            own = np.array([[0] * span.n_rows, part.limits, part.starts, part.stops], dtype=np.int32)
            ranges[:, index, row : row + span.n_rows] = own + row
            row += span.n_rows
    mask = block_mask(*torch.from_numpy(ranges).to(device))
    yield Stream(start=0, count=len(given.packs), rows=given.rows, past=0, bias_NQK=mask)


_FORMS: Mapping[str, Callable[[Packed, torch.dtype, torch.device], Iterator[Stream]]] = {
    "dense": _dense, "split": _split, "flex": _flex,
}  # fmt: skip


def _neighbours(spans: Sequence[Span]) -> Iterator[list[Span]]:
    """Runs of spans of together at most CHUNK rows, a longer span by itself: one small kernel, not two per document."""
    group: list[Span] = []
    for span in spans:
        if group and sum(other.n_rows for other in group) + span.n_rows > CHUNK:
            yield group
            group = []
        group.append(span)
    if group:
        yield group


def _document(span: Span, row: int, dtype: torch.dtype, device: torch.device) -> Iterator[Stream]:
    """A span that starts at packed row `row`: its text, then its canvases in chunks."""
    n = len(span.commit)
    if n and span.block == 1:
        yield Stream(start=row, count=1, rows=n, past=0, bias_NQK=None, is_causal=True)
    part = layout(span)
    for start, stop, past in _chunks(span):
        bias = _bias(seen(part, slice(start, stop), np.r_[0:past, start:stop])[None, None], dtype, device)
        yield Stream(start=row + start, count=1, rows=stop - start, past=past, bias_NQK=bias, before=row)


def _chunks(span: Span) -> Iterator[tuple[int, int, int]]:
    """(start, stop, past): rows [start, stop) of the span need no more than its first `past` rows and themselves."""
    n = len(span.commit)
    if span.block > 1:  # a block of the text sees all of itself, so that the text needs masks as well
        step = max(CHUNK // span.block, 1) * span.block
        yield from ((start, min(start + step, n), start) for start in range(0, n, step))
    start = stop = n
    past = 0
    for canvas in span.canvases:
        width = len(canvas.tokens)
        if start < stop and stop + width - start > CHUNK:
            yield start, stop, past
            start, past = stop, 0
        stop, past = stop + width, max(past, canvas.after)
    if start < stop:
        yield start, stop, past


def _bias(sees: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """0 where seen, else -inf."""
    return torch.zeros(sees.shape, dtype=dtype).masked_fill_(~sees, float("-inf")).to(device)
