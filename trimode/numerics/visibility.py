"""Spans -> who-sees-whom tensors: the one rule, for serving and for training alike. Knows no model and no cache.

Suffixes: Q query rows, K key rows, N streams side by side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trimode.spans import Span, layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """`count` equal stretches of the packed rows; each attends to its own past and to itself, never to another.

    bias_NQK is added to the attention scores, 0 where visible and -inf where not, shape
    [count, 1, rows, past + rows]; None when every row sees everything (a single committed token).
    """

    start: int
    count: int
    rows: int
    past: int
    bias_NQK: Tensor | None

    @property
    def stop(self) -> int:
        return self.start + self.count * self.rows


Visibility = tuple[Stream, ...]


def visible(spans: Sequence[Span]) -> Tensor:
    """The rule itself as a boolean matrix [rows, rows] over the rows of `spans` in order (True: q sees k).

    c0  x . . . .      two commits and a canvas of three after the first
    c1  x x . . .
    a0  x . x x x
    a1  x . x x x
    a2  x . x x x
    """
    layouts = [layout(span) for span in spans]
    row = torch.tensor([i for part in layouts for i in range(len(part.tokens))])
    limit = torch.tensor([i for part in layouts for i in part.limits])
    canvas = torch.tensor([i for part in layouts for i in part.canvases])
    owner = torch.tensor([i for i, part in enumerate(layouts) for _ in part.tokens])
    is_commit = canvas < 0
    sees_commit = is_commit[None, :] & (row[None, :] < limit[:, None])
    sees_canvas = ~is_commit[None, :] & (canvas[None, :] == canvas[:, None])
    return (owner[None, :] == owner[:, None]) & (sees_commit | sees_canvas)


def serving(spans: Sequence[Span], pasts: Sequence[int], dtype: torch.dtype, device: torch.device) -> Visibility:
    """One stream per span, each over its own cache of `pasts[i]` committed tokens (all of which every row sees)."""
    streams, start = [], 0
    for span, past in zip(spans, pasts, strict=True):
        bias = None
        if span.n_rows > 1:
            bias = torch.zeros(1, 1, span.n_rows, past + span.n_rows, dtype=dtype)
            bias[0, 0, :, past:].masked_fill_(~visible([span]), float("-inf"))
            bias = bias.to(device)
        streams.append(Stream(start=start, count=1, rows=span.n_rows, past=past, bias_NQK=bias))
        start += span.n_rows
    return tuple(streams)


def packed(packs: Sequence[Sequence[Span]], rows: int, dtype: torch.dtype) -> Visibility:
    """Training: every pack of spans becomes one stream of exactly `rows` rows, without past; padding sees itself."""
    bias = torch.full((len(packs), 1, rows, rows), float("-inf"), dtype=dtype)
    for index, spans in enumerate(packs):
        seen = visible(spans)
        n = seen.shape[0]
        bias[index, 0, :n, :n].masked_fill_(seen, 0.0)
        bias[index, 0].diagonal()[n:] = 0.0
    return (Stream(start=0, count=len(packs), rows=rows, past=0, bias_NQK=bias),)
