"""A span spelled out row by row: order, positions, limits, and what is refused."""

from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from typing import get_args

import pytest
from hypothesis import given

from tests.strategies import spans
from trimode.spans import KINDS, Canvas, Kind, Span, layout


def canvas_rows(span: Span) -> Iterator[tuple[int, Canvas, int]]:
    """(index of the canvas, canvas, slot) in the order of the rows."""
    for index, canvas in enumerate(span.canvases):
        for slot in range(len(canvas.tokens)):
            yield index, canvas, slot


@given(spans())
def test_rows_are_the_commits_and_then_canvas_after_canvas(span: Span) -> None:
    spelled = layout(span)
    assert spelled.tokens == [*span.commit, *(canvas.tokens[slot] for _, canvas, slot in canvas_rows(span))]


@given(spans())
def test_a_slot_sees_the_rows_of_its_own_canvas_and_a_commit_of_none(span: Span) -> None:
    spelled = layout(span)
    n = len(span.commit)
    owner = [-1] * n + [index for index, _, _ in canvas_rows(span)]
    for row, (start, stop) in enumerate(zip(spelled.starts, spelled.stops, strict=True)):
        mine = [other for other in range(n, len(owner)) if other >= n and owner[other] == owner[row]]
        assert list(range(start, stop)) == (mine if row >= n else [])


@given(spans())
def test_a_slot_stands_where_the_text_would_go_on_after_the_commits_it_sees(span: Span) -> None:
    expected = [*range(len(span.commit)), *(canvas.after + slot for _, canvas, slot in canvas_rows(span))]
    assert layout(span).offsets == expected


@given(spans())
def test_a_commit_sees_commits_up_to_itself_and_a_slot_those_before_its_canvas(span: Span) -> None:
    expected = [*(i + 1 for i in range(len(span.commit))), *(canvas.after for _, canvas, _ in canvas_rows(span))]
    assert layout(span).limits == expected


def test_commits_in_blocks_see_to_the_end_of_their_block() -> None:
    span = Span(commit=(5, 6, 7, 8, 9, 4), block=3, canvases=(Canvas(after=6, tokens=(3, 3)),), kind="commit")
    assert layout(span).limits == [3, 3, 3, 6, 6, 6, 6, 6]
    with pytest.raises(ValueError, match="5 commits are not whole blocks of 3"):
        Span(commit=(5, 6, 7, 8, 9), block=3, kind="commit")


def test_a_slot_of_a_shifted_canvas_is_read_from_the_row_before() -> None:
    canvas = Canvas(after=2, tokens=(7, 3, 3), read=(1, 2), shifted=True)
    assert layout(Span(commit=(5, 6), canvases=(canvas,), read=(1,), kind="commit")).reads == [1, 2, 3]
    with pytest.raises(ValueError, match="slot 0"):
        Canvas(after=2, tokens=(3, 3), read=(0, 1), shifted=True)


@given(spans())
def test_wanted_rows_come_in_the_order_of_picks(span: Span) -> None:
    n = len(span.commit)
    rows = [(canvas, slot) for _, canvas, slot in canvas_rows(span)]
    wanted = [n + row for row, (canvas, slot) in enumerate(rows) if slot in canvas.read]
    assert layout(span).reads == [*span.read, *wanted]


@given(spans())
def test_a_span_counts_its_rows_and_its_wanted_rows(span: Span) -> None:
    spelled = layout(span)
    assert span.n_rows == len(spelled.tokens) == len(spelled.offsets) == len(spelled.limits) == len(spelled.stops)
    assert span.n_read == len(spelled.reads)


def test_guesses_are_what_a_verify_forward_reads_behind_its_first_row() -> None:
    assert Span(commit=(4, 5, 6, 7), read=(1, 2, 3), kind="verify").n_guesses == 2
    assert Span(commit=(4, 5), read=(0, 1), kind="prefill").n_guesses == 0


@pytest.mark.parametrize("after", [-1, 3])
def test_a_canvas_after_commits_that_are_not_there_is_refused_with_the_range(after: int) -> None:
    with pytest.raises(ValueError, match=rf"canvas\.after is {after}, allowed is 0 to 2"):
        Span(commit=(7, 8), canvases=(Canvas(after=after, tokens=(3,)),), kind="draft")


def test_kinds_are_listed_once_each() -> None:
    assert get_args(Kind) == KINDS
    assert len(set(KINDS)) == len(KINDS)


def test_a_span_never_changes_after_it_was_planned() -> None:
    span = Span(commit=(7,), kind="decode")
    with pytest.raises(FrozenInstanceError):
        span.commit = (8,)  # type: ignore[misc]
    assert hash(span) == hash(Span(commit=(7,), kind="decode"))
