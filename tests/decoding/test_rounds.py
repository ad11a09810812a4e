"""The record of recent rounds: which are poor, how long breaks are, and how shares fade."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimode.cost import FLAT, CostModel
from trimode.decoding.rounds import LONGEST_BREAK, MEMORY, SHORTEST_BREAK, Rate, Record

STEEP = CostModel(widths=(1, 2), costs=(2.0, 4.0))


def breaks(*made: int, fallback_below: float | None = 3.0) -> list[int]:
    """Plain steps after each of these rounds of one forward."""
    record, found = Record(), []
    for tokens in made:
        record = record.after_forward(tokens, 1.0).after_round(FLAT, fallback_below)
        found.append(record.plain)
        while record.plain:
            record = record.after_forward(1, 1.0).after_round(FLAT, fallback_below)
    return found


def test_breaks_double_while_rounds_stay_poor_and_start_over_after_a_good_one() -> None:
    assert breaks(2, 2, 2, 2, 2, 2, 2, 2) == [4, 8, 16, 32, 64, 64, 64, 64]
    assert breaks(2, 2, 3, 2, 2) == [4, 8, 0, 4, 8]


def test_a_break_is_as_long_as_the_loss_was_large_within_limits() -> None:
    assert [breaks(made)[0] for made in (0, 1, 2, 3)] == [12, 8, 4, 0]
    assert breaks(2, 1, 2) == [4, 16, 16]
    assert breaks(0, fallback_below=0.1) == [SHORTEST_BREAK] == [2]
    assert breaks(0, fallback_below=99.0) == [LONGEST_BREAK] == [64]


def test_plain_steps_belong_to_no_round() -> None:
    record = Record().after_forward(2, 1.0).after_round(FLAT, 3.0)
    for left in (3, 2, 1, 0):
        record = record.after_forward(1, 1.0).after_round(FLAT, 3.0)
        assert (record.plain, record.poor, record.made, record.spent) == (left, 1, 0, 0.0)


def test_a_round_of_several_forwards_is_judged_as_a_whole() -> None:
    record = Record().after_forward(1, 1.0).after_forward(2, 1.0)
    assert (record.made, record.spent) == (3, 2.0)
    assert record.after_round(FLAT, 3.0).plain == 0
    assert record.after_round(FLAT, 3.5).plain == 2


@pytest.mark.parametrize(("made", "spent", "plain"), [(1, 2.0, 0), (1, 2.1, 2), (3, 6.0, 0), (3, 8.5, 5)])
def test_by_cost_a_round_is_poor_if_plain_steps_would_have_made_more(made: int, spent: float, plain: int) -> None:
    assert Record().after_forward(made, spent).after_round(STEEP, None).plain == plain


def test_fallback_zero_means_never() -> None:
    assert breaks(0, 0, 0, fallback_below=0.0) == [0, 0, 0]


def test_lookups_that_were_given_up_are_tried_again_some_day() -> None:
    hopeless = Rate()
    for _ in range(20):
        hopeless = hopeless.after(0, 8)
    record = Record(found=hopeless)
    assert record.found.value < 0.01
    hopes = []
    for _ in range(200):
        record = record.after_forward(1, 1.0)
        hopes.append(record.found.value)
    assert hopes == sorted(hopes)
    assert hopes[3] < 0.05
    assert 0.5 < hopes[-1] < 2 / 3


@given(history=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)).map(sorted), max_size=20))
def test_a_share_fades_with_every_judgement(history: list[list[int]]) -> None:
    rate = Rate()
    for held, judged in history:
        rate = rate.after(held, judged)
    told = [(held, judged) for held, judged in history if judged]
    fade = [MEMORY**age for age in range(len(told), -1, -1)]
    held = sum(f * h for f, (h, _) in zip(fade, [(2.0, 3.0), *told], strict=True))
    judged = sum(f * j for f, (_, j) in zip(fade, [(2.0, 3.0), *told], strict=True))
    assert rate.value == pytest.approx(held / judged)
    assert 0 <= rate.value <= 1
