"""What one forward is asked to do for one request, and what it answers, in integers. No torch, no model.

A committed token sees every committed token up to itself.
A canvas token sees the committed tokens before its canvas, and all of its own canvas.
Nobody sees another canvas. Only committed tokens enter the KV cache.
Two fields vary this for checkpoints trained otherwise: `Span.block` and `Canvas.shifted`.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Score = Literal["confidence", "margin", "entropy"]
Kind = Literal["prefill", "decode", "denoise", "draft", "verify", "commit"]
KINDS: tuple[Kind, ...] = ("prefill", "decode", "denoise", "draft", "verify", "commit")
FinishReason = Literal["stop", "length", "tool_calls", "constraint", "cancelled", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Canvas:
    """Tokens (some of them masks) that look at each other and at the first `after` commits of their span.

    Slot j stands at position cache length + after + j, and its row names that position itself; in a `shifted` canvas
    the row before names it, so that slot 0 cannot be read.
    """

    after: int
    tokens: tuple[int, ...]
    read: tuple[int, ...] = ()  # slots whose rows are wanted
    draft: bool = False  # only self-speculation sets it: these rows cannot change an answer
    round: int = 0  # which look at these slots this is: a key of the sampling noise
    score: Score = "confidence"  # what `Rows.score_S` of its slots is to be
    shifted: bool = False
    mix: float = 0.0  # share of the causal row naming the same position, commit after + j - 1, in slot j's logits

    def __post_init__(self) -> None:
        if self.shifted and 0 in self.read:
            raise ValueError("slot 0 of a shifted canvas has no row of its own to read")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One request's share of a forward: tokens to commit, canvases to look at, rows wanted.

    The row of commit i names the token *after* commit i. Commits are fed at positions cache length + i.
    With `block` above 1 commits come in whole blocks of that many, each of which sees all of itself.
    """

    commit: tuple[int, ...]
    kind: Kind
    canvases: tuple[Canvas, ...] = ()
    read: tuple[int, ...] = ()  # commits whose rows are wanted
    block: int = 1

    def __post_init__(self) -> None:
        if len(self.commit) % self.block:
            raise ValueError(f"{len(self.commit)} commits are not whole blocks of {self.block}")
        for canvas in self.canvases:
            if not 0 <= canvas.after <= len(self.commit):
                raise ValueError(f"canvas.after is {canvas.after}, allowed is 0 to {len(self.commit)}")
            if canvas.mix and not all(0 < canvas.after + slot <= len(self.commit) for slot in canvas.read):
                raise ValueError("canvas.mix needs the commit before every slot that is read")

    @property
    def n_rows(self) -> int:
        """Rows of the forward this span takes: commits and all canvas slots."""
        return len(self.commit) + sum(len(canvas.tokens) for canvas in self.canvases)

    @property
    def n_read(self) -> int:
        """Rows somebody wants to read."""
        return len(self.read) + sum(len(canvas.read) for canvas in self.canvases)

    @property
    def n_guesses(self) -> int:
        """Guesses under verification: one row names what stands in the first's place, and one what follows each."""
        return len(self.read) - 1 if self.kind == "verify" else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A span spelled out, one entry per row, commits first, then canvas after canvas."""

    tokens: list[int]
    offsets: list[int]  # position relative to the cache length
    limits: list[
        int
    ]  # how many commits of the span the row sees: i + 1 for commit i (or its block's end), `after` for a canvas
    starts: list[int]  # the rows of its own canvas are [start, stop); 0 and 0 for a commit
    stops: list[int]
    drafts: list[bool]  # rows that cannot change an answer
    reads: list[int]  # rows wanted, in the order of `Picks`
    mixes: list[tuple[int, int, float]]  # wanted row (its place in `reads`), row to mix in, its share


def layout(span: Span) -> Layout:
    """Spell a span out row by row. Row q sees row k if k < limits[q] or starts[q] <= k < stops[q]."""
    n = len(span.commit)
    out = Layout(
        tokens=list(span.commit),
        offsets=list(range(n)),
        limits=[(i // span.block + 1) * span.block for i in range(n)],
        starts=[0] * n,
        stops=[0] * n,
        drafts=[False] * n,
        reads=list(span.read),
        mixes=[],
    )
    for canvas in span.canvases:
        start, width = len(out.tokens), len(canvas.tokens)
        if canvas.mix:
            out.mixes.extend((len(out.reads) + i, canvas.after + s - 1, canvas.mix) for i, s in enumerate(canvas.read))
        out.reads.extend(start + slot - canvas.shifted for slot in canvas.read)
        out.tokens.extend(canvas.tokens)
        out.offsets.extend(range(canvas.after, canvas.after + width))
        out.limits.extend([canvas.after] * width)
        out.starts.extend([start] * width)
        out.stops.extend([start + width] * width)
        out.drafts.extend([canvas.draft] * width)
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What some rows tell beyond their choice: their likeliest tokens in order, N of them, and of one token named to
    each row its log-probability and rank, 1 for the likeliest. All untempered, the mask id in the denominator."""

    token_SN: NDArray[np.int64]
    logprob_SN: NDArray[np.float64]
    named_logprob_S: NDArray[np.float64]  # NaN where no token was named
    named_rank_S: NDArray[np.int64]  # 0 there


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What was chosen at some rows: token ids, and the untempered probability of each (mask id in the denominator).

    `score_S` ranks the rows, higher is surer, as their canvas asked: the confidence itself, the margin between the two
    most probable tokens, or the entropy in nats with its sign turned. `told` is there only where somebody asked.
    """

    token_S: NDArray[np.int64]
    confidence_S: NDArray[np.float64]
    score_S: NDArray[np.float64]
    told: Told | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Picks:
    """The rows a span wanted, by where they stand: `commit` names next tokens, `canvases` their own slots."""

    commit: Rows
    canvases: tuple[Rows, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CanvasView:
    """What somebody watching sees of an open canvas, which follows the final text: its tokens, mask ids included, and
    which of the filled slots may still change."""

    tokens: tuple[int, ...]
    unsure: frozenset[int] = frozenset()
