"""A draft is accepted up to its first token that differs."""

from hypothesis import given
from hypothesis import strategies as st

from trimode.numerics.acceptance import accepted_length

TOKENS = st.lists(st.integers(0, 2), max_size=6)


@given(TOKENS, TOKENS)
def test_the_accepted_part_is_the_longest_common_beginning(draft: list[int], verified: list[int]) -> None:
    n = accepted_length(draft, verified)
    assert draft[:n] == verified[:n]
    assert n == min(len(draft), len(verified)) or draft[n] != verified[n]


def test_the_bonus_row_accepts_nothing_by_itself() -> None:
    assert accepted_length([4, 5], [4, 5, 9]) == 2
    assert accepted_length([4, 5], [4, 6, 5]) == 1
    assert accepted_length([4, 5], [5, 4, 5]) == 0
    assert accepted_length([], [9]) == 0
