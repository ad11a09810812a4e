"""The one rule of who sees whom: said in words pair by pair, drawn for every mode, and the same in all its forms."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.fakes import MASK
from tests.strategies import spans
from trimode.numerics.visibility import Stream, serving, visible
from trimode.spans import Canvas, Span

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Row:
    """One row, in words: whose it is, the commit or the canvas it belongs to, and what its canvas comes after."""

    span: int
    commit: int | None = None
    canvas: int | None = None
    after: int = 0


def rows_of(packed_spans: list[Span]) -> list[Row]:
    rows = []
    for index, span in enumerate(packed_spans):
        rows += [Row(index, commit=i) for i in range(len(span.commit))]
        for number, canvas in enumerate(span.canvases):
            rows += [Row(index, canvas=number, after=canvas.after) for _ in canvas.tokens]
    return rows


def sees(q: Row, k: Row) -> bool:
    if q.span != k.span:
        return False
    if k.commit is not None and q.commit is not None:
        return k.commit <= q.commit
    if k.commit is not None:
        return k.commit < q.after
    return q.canvas == k.canvas


def drawn(picture: str) -> Tensor:
    """`x` where the row sees the column, `.` where not."""
    return torch.tensor([[sign == "x" for sign in line.split()] for line in picture.strip().splitlines()])


def seen(stream: Stream) -> Tensor:
    """The boolean form of a stream's bias, which holds nothing but 0 and -inf."""
    assert stream.bias_NQK is not None
    is_zero, is_hidden = stream.bias_NQK == 0, stream.bias_NQK == float("-inf")
    assert bool((is_zero | is_hidden).all())
    return is_zero[:, 0]


def masks(n: int, after: int) -> Canvas:
    return Canvas(after=after, tokens=(MASK,) * n)


@given(st.lists(spans(), max_size=3))
def test_the_matrix_is_the_rule_pair_by_pair(packed_spans: list[Span]) -> None:
    rows = rows_of(packed_spans)
    matrix = visible(packed_spans)
    assert matrix.dtype == torch.bool
    assert matrix.tolist() == [[sees(q, k) for k in rows] for q in rows]


PICTURES = {
    "prefill": (
        Span(commit=(7, 8, 9), kind="prefill"),
        """
        x . .
        x x .
        x x x
        """,
    ),
    "ar": (
        Span(commit=(7,), kind="decode"),
        """
        x
        """,
    ),
    "denoise": (
        Span(commit=(), canvases=(Canvas(after=0, tokens=(7, MASK, MASK)),), kind="denoise"),
        """
        x x x
        x x x
        x x x
        """,
    ),
    "commit a block and first look at the next": (
        Span(commit=(7, 8, 9), canvases=(masks(2, 3),), kind="denoise"),
        """
        x . . . .
        x x . . .
        x x x . .
        x x x x x
        x x x x x
        """,
    ),
    "linear draft": (
        Span(commit=(7,), canvases=(masks(3, 1),), kind="draft"),
        """
        x . . .
        x x x x
        x x x x
        x x x x
        """,
    ),
    "linear verify": (
        Span(commit=(7, 8), kind="verify"),
        """
        x .
        x x
        """,
    ),
    "chained": (
        Span(commit=(7, 8), canvases=(masks(2, 2),), kind="verify"),
        """
        x . . .
        x x . .
        x x x x
        x x x x
        """,
    ),
    "pruned, after one commit and after three": (
        Span(commit=(7, 8, 9), canvases=(masks(2, 1), masks(2, 3)), kind="verify"),
        """
        x . . . . . .
        x x . . . . .
        x x x . . . .
        x . . x x . .
        x . . x x . .
        x x x . . x x
        x x x . . x x
        """,
    ),
    "quadratic, a canvas after every prefix": (
        Span(commit=(7, 8), canvases=(masks(2, 0), masks(2, 1), masks(2, 2)), kind="verify"),
        """
        x . . . . . . .
        x x . . . . . .
        . . x x . . . .
        . . x x . . . .
        x . . . x x . .
        x . . . x x . .
        x x . . . . x x
        x x . . . . x x
        """,
    ),
    "fill-in-the-middle: the masks, then the suffix in the same canvas": (
        Span(commit=(7, 8), canvases=(Canvas(after=2, tokens=(MASK, MASK, 9)),), kind="denoise"),
        """
        x . . . .
        x x . . .
        x x x x x
        x x x x x
        x x x x x
        """,
    ),
    "training: a prompt of one, then two noised blocks": (
        Span(commit=(7, 8, 9, 10), canvases=(Canvas(after=1, tokens=(MASK, 9)), masks(2, 3)), kind="prefill"),
        """
        x . . . . . . .
        x x . . . . . .
        x x x . . . . .
        x x x x . . . .
        x . . . x x . .
        x . . . x x . .
        x x x . . . x x
        x x x . . . x x
        """,
    ),
}


@pytest.mark.parametrize("mode", PICTURES)
def test_every_mode_looks_as_it_is_drawn(mode: str) -> None:
    span, picture = PICTURES[mode]
    assert visible([span]).tolist() == drawn(picture).tolist()


def test_training_is_the_published_dual_stream_mask_read_with_the_clean_half_first() -> None:
    """Spec 2.1: noisy sees its own noisy block and strictly earlier clean blocks, clean is causal, never noisy."""
    n, size = 6, 2
    canvases = tuple(Canvas(after=start, tokens=(MASK,) * size) for start in range(0, n, size))
    matrix = visible([Span(commit=tuple(range(7, 7 + n)), canvases=canvases, kind="prefill")])
    q, k = torch.arange(n)[:, None], torch.arange(n)[None, :]
    assert torch.equal(matrix[:n, :n], q >= k)
    assert not matrix[:n, n:].any()
    assert torch.equal(matrix[n:, :n], q // size > k // size)
    assert torch.equal(matrix[n:, n:], q // size == k // size)


@given(st.lists(spans(), min_size=1, max_size=4))
def test_spans_of_one_pack_never_see_each_other(packed_spans: list[Span]) -> None:
    matrix = visible(packed_spans)
    blocks = torch.block_diag(*(visible([span]).float() for span in packed_spans)).bool()
    assert torch.equal(matrix, blocks.view_as(matrix))


@given(st.lists(st.tuples(spans(), st.integers(0, 4)), min_size=1, max_size=4))
def test_serving_shows_all_of_the_past_and_the_rule_behind_it(requests: list[tuple[Span, int]]) -> None:
    packed_spans, pasts = [span for span, _ in requests], [past for _, past in requests]
    streams = serving(packed_spans, pasts).streams(torch.float32, CPU)
    edges = [0]
    for stream, span, past in zip(streams, packed_spans, pasts, strict=True):
        assert (stream.start, stream.count, stream.rows, stream.past) == (edges[-1], 1, span.n_rows, past)
        edges.append(stream.stop)
        if stream.bias_NQK is None:
            assert visible([span]).all()
        else:
            assert stream.bias_NQK.shape == (1, 1, span.n_rows, past + span.n_rows)
            assert seen(stream)[0, :, :past].all()
            assert torch.equal(seen(stream)[0, :, past:], visible([span]))
    assert edges[-1] == sum(span.n_rows for span in packed_spans)


def test_a_single_committed_token_needs_no_bias() -> None:
    (stream,) = serving([Span(commit=(7,), kind="decode")], [9]).streams(torch.float32, CPU)
    assert stream.bias_NQK is None


@given(st.lists(spans(), max_size=3))
def test_every_row_sees_itself_so_no_softmax_is_empty(packed_spans: list[Span]) -> None:
    assert visible(packed_spans).diagonal().all()
