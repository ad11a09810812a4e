"""Prompt lookup finds what a naive scan finds."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from trimode.decoding.lookup import lookup


def naive(tokens: Sequence[int], n: int) -> tuple[int, ...]:
    """All earlier places, longest ending first, the latest place of them."""
    for size in (4, 3, 2):
        places = [i for i in range(len(tokens) - size) if tokens[i : i + size] == tokens[-size:]]
        if places:
            text = list(tokens)
            for i in range(n):
                text.append(text[places[-1] + size + i])
            return tuple(text[len(tokens) :])
    return ()


@given(tokens=st.lists(st.integers(0, 2), max_size=40), n=st.integers(0, 6))
def test_it_equals_a_naive_scan(tokens: list[int], n: int) -> None:
    assert lookup(tokens, n) == naive(tokens, n)


def test_the_longest_ending_wins_over_a_later_shorter_one() -> None:
    assert lookup([1, 2, 3, 4, 50, 51, 9, 3, 4, 60, 1, 2, 3, 4], 2) == (50, 51)


def test_what_repeats_goes_on_repeating() -> None:
    assert lookup([1, 2, 3, 1, 2, 3, 1, 2], 7) == (3, 1, 2, 3, 1, 2, 3)
    assert lookup([9, 5, 5, 5], 4) == (5, 5, 5, 5)


def test_among_equals_the_latest_place_wins() -> None:
    assert lookup([1, 2, 50, 1, 2, 60, 1, 2], 1) == (60,)


def test_no_more_than_four_tokens_of_the_ending_are_compared() -> None:
    assert lookup([5, 1, 2, 3, 4, 50, 6, 1, 2, 3, 4, 60, 5, 1, 2, 3, 4], 1) == (60,)


def test_one_token_is_too_little_to_go_by() -> None:
    assert lookup([1, 2, 3, 9, 3], 4) == ()
    assert lookup([], 4) == lookup([1], 4) == ()
