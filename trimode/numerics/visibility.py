"""Spans -> who-sees-whom tensors: the one rule, and its form for serving. Knows no model and no cache.

Suffixes: Q query rows, K key rows, N streams side by side.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from trimode.spans import Layout, Span, layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """`count` equal stretches of the packed rows; each attends to its own past and to itself, never to another.

    bias_NQK is added to the attention scores, 0 where visible and -inf where not, shape
    [count, 1, rows, past + rows], or says the same to FlexAttention; None when every row sees everything (a single
    committed token) or, where `is_causal`, every row up to itself. The past lies in the stream's cache; without caches
    it is the packed rows [before, before + past), and `count` is 1.
    """

    start: int
    count: int
    rows: int
    past: int
    bias_NQK: Tensor | BlockMask | None
    is_causal: bool = False
    before: int | None = None

    @property
    def stop(self) -> int:
        return self.start + self.count * self.rows


class Visibility(Protocol):
    """Who sees whom in one forward."""

    def streams(self, dtype: torch.dtype, device: torch.device) -> tuple[Stream, ...]:
        """As masks for attention in the dtype it computes in, one stream after the other, all packed rows in order."""
        ...

    @property
    def draft_rows(self) -> tuple[int, ...]:
        """The packed rows that cannot change an answer, in order: a draft adapter holds for these alone."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """One stream per span, each over its own cache of `pasts[i]` committed tokens (all of which every row sees)."""

    layouts: Sequence[Layout]
    pasts: Sequence[int]

    def streams(self, dtype: torch.dtype, device: torch.device) -> tuple[Stream, ...]:
        streams, start = [], 0
        for part, past in zip(self.layouts, self.pasts, strict=True):
            rows, bias = len(part.tokens), None
            if rows > 1:
                bias = torch.zeros(1, 1, rows, past + rows, dtype=dtype)
                bias[0, 0, :, past:].masked_fill_(~seen(part), float("-inf"))
                bias = bias.to(device)
            streams.append(Stream(start=start, count=1, rows=rows, past=past, bias_NQK=bias))
            start += rows
        return tuple(streams)

    @property
    def draft_rows(self) -> tuple[int, ...]:
        flags = (is_draft for part in self.layouts for is_draft in part.drafts)
        return tuple(row for row, is_draft in enumerate(flags) if is_draft)


@dataclass(frozen=True, slots=True, kw_only=True)
class Masked:
    """Streams whose masks are there already."""

    given: tuple[Stream, ...]
    draft_rows: tuple[int, ...] = ()

    def streams(self, dtype: torch.dtype, device: torch.device) -> tuple[Stream, ...]:
        return tuple(replace(s, bias_NQK=None if s.bias_NQK is None else s.bias_NQK.to(device)) for s in self.given)


def seen(part: Layout, rows: slice = slice(None), keys: NDArray[np.int64] | None = None) -> Tensor:
    """The rule for `rows` of one span over `keys`, all rows unless said, as a boolean matrix (True: q sees k).

    c0  x . . . .      two commits and a canvas of three after the first
    c1  x x . . .
    a0  x . x x x
    a1  x . x x x
    a2  x . x x x
    """
    key = np.arange(len(part.tokens)) if keys is None else keys
    limit, start, stop = (np.array(x[rows], dtype=np.int64)[:, None] for x in (part.limits, part.starts, part.stops))
    return torch.from_numpy((key < limit) | ((key >= start) & (key < stop)))


def visible(spans: Sequence[Span]) -> Tensor:
    """The rule over the rows of several spans in order, none of which sees another."""
    blocks = [seen(layout(span)) for span in spans]
    return torch.block_diag(*blocks).bool() if blocks else torch.zeros(0, 0, dtype=torch.bool)


def serving(spans: Sequence[Span], pasts: Sequence[int]) -> Serving:
    """The rule for spans that each continue a cache of their own."""
    return Serving(layouts=[layout(span) for span in spans], pasts=list(pasts))
