"""Intervals are those of their sources, and cover as often as they say."""

import numpy as np
import pytest

from trimode.errors import InvalidInput
from trimode.evaluation.intervals import Interval, paired_difference, ratio, share, wilson


def outcomes(both: int, first: int, second: int, neither: int) -> tuple[list[bool], list[bool]]:
    """The table of a pair of answers to every item, as two lists."""
    one = [True] * (both + first) + [False] * (second + neither)
    other = [True] * both + [False] * first + [True] * second + [False] * neither
    return one, other


@pytest.mark.parametrize(  # R. G. Newcombe, Statistics in Medicine 17 (1998) 857, table I, method 3
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_a_share_has_the_published_score_limits(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=1e-4)
    assert wilson(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=1e-4)


def test_the_ends_are_exact_and_nothing_tried_is_nothing_known() -> None:
    assert wilson(0, 7)[0] == 0.0 and wilson(7, 7)[1] == 1.0
    assert wilson(0, 0) == (0.0, 1.0)
    assert share(3, 4).value == 0.75


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        ((14, 5, 0, 22), 0.0115, 0.2265),  # Altman et al., Statistics with Confidence (2000), table 6.2: 0.011 to 0.226
        ((36, 12, 2, 0), 0.0569, 0.3404),  # Newcombe, Statistics in Medicine 17 (1998) 2635, method 10
        ((59, 6, 16, 80), -0.1186, -0.0046),  # Fagerland et al., Statistical Analysis of Contingency Tables, chapter 8
    ],
)
def test_a_paired_difference_has_the_published_limits(table: tuple[int, ...], low: float, high: float) -> None:
    one, other = outcomes(*table)
    found = paired_difference(one, other)
    assert found.value == pytest.approx((table[1] - table[2]) / sum(table))
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)
    turned = paired_difference(other, one)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


def test_answers_that_are_all_the_same_differ_by_nothing_and_the_interval_stays_honest() -> None:
    found = paired_difference([True] * 9 + [False], [True] * 9 + [False])
    assert found.value == 0.0
    assert found.low < 0 < found.high
    everywhere = paired_difference([True] * 50, [True] * 50)
    assert everywhere.high == pytest.approx(1 - wilson(50, 50)[0])


def test_pairs_that_agree_often_are_told_apart_better_than_strangers() -> None:
    alike, strange = paired_difference(*outcomes(80, 6, 2, 12)), paired_difference(*outcomes(71, 15, 11, 3))
    assert alike.value == strange.value
    assert alike.high - alike.low < strange.high - strange.low


@pytest.mark.parametrize("cells", [(0.8, 0.08, 0.05, 0.07), (0.3, 0.1, 0.1, 0.5), (0.96, 0.01, 0.02, 0.01)])
def test_ninety_five_of_a_hundred_paired_intervals_hold_the_truth(cells: tuple[float, ...]) -> None:
    rng = np.random.default_rng(0)
    found = [paired_difference(*outcomes(*map(int, row))) for row in rng.multinomial(150, cells, 800)]
    covered = sum(each.low <= cells[1] - cells[2] <= each.high for each in found) / len(found)
    assert 0.93 < covered < 0.995


def test_a_ratio_is_that_of_sums_and_its_interval_is_the_bootstraps() -> None:
    rng = np.random.default_rng(0)
    forwards = rng.integers(5, 60, 300)
    tokens = forwards * rng.uniform(2, 7, 300)
    found = ratio(tokens.tolist(), forwards.tolist())
    assert found.value == pytest.approx(tokens.sum() / forwards.sum())
    drawn = rng.multinomial(300, np.full(300, 1 / 300), 4000)
    low, high = np.quantile(drawn @ tokens / (drawn @ forwards), [0.025, 0.975])
    assert found.high - found.low == pytest.approx(high - low, rel=0.06)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.03)


def test_ninety_five_of_a_hundred_ratios_hold_the_truth() -> None:
    rng = np.random.default_rng(0)
    forwards = rng.integers(5, 60, (1000, 80))
    tokens = forwards * rng.uniform(2, 6, (1000, 80))
    found = [ratio(a.tolist(), b.tolist()) for a, b in zip(tokens, forwards, strict=True)]
    assert 0.925 < sum(each.low <= 4 <= each.high for each in found) / 1000 < 0.97


def test_a_ratio_without_spread_is_known() -> None:
    assert ratio([4, 9, 2], [4, 9, 2]) == Interval(value=1.0, low=1.0, high=1.0)
    assert ratio([8], [2]) == Interval(value=4.0, low=4.0, high=4.0)


def test_counts_that_cannot_be_are_refused() -> None:
    with pytest.raises(InvalidInput, match="successes is 5, allowed are 0 to n, which is 4"):
        wilson(5, 4)
    with pytest.raises(InvalidInput, match="n is 0, a share needs at least 1 item"):
        share(0, 0)
    with pytest.raises(InvalidInput, match="2 and 1 items are no pairs"):
        paired_difference([True, False], [True])
    with pytest.raises(InvalidInput, match="1 numerators over 2 denominators"):
        ratio([1], [1, 2])
    with pytest.raises(InvalidInput, match="add up to 0 are no ratio"):
        ratio([], [])
