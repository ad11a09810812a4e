"""Which slots to fill, by confidence: the rules in small numbers."""

from hypothesis import given
from hypothesis import strategies as st

from trimode.numerics.unmasking import above_threshold, by_confidence, even_quota, most_confident

SURE = st.lists(st.floats(0, 1), max_size=12)


def test_the_most_confident_come_first_and_the_earlier_among_equals() -> None:
    assert by_confidence([0.1, 0.9, 0.5, 0.9]) == [1, 3, 2, 0]
    assert most_confident([0.1, 0.9, 0.5, 0.9], 3) == [1, 3, 2]
    assert most_confident([0.1, 0.9], 0) == []


def test_a_threshold_is_reached_by_what_equals_it() -> None:
    assert sorted(above_threshold([0.9, 0.89, 0.95], 0.9)) == [0, 2]


@given(SURE, st.floats(0, 2))
def test_a_threshold_fills_all_that_reach_it_and_one_in_any_case(confidence: list[float], threshold: float) -> None:
    chosen = above_threshold(confidence, threshold)
    reach = {i for i, c in enumerate(confidence) if c >= threshold}
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) >= reach
    assert len(chosen) == max(len(reach), min(len(confidence), 1))
    assert not confidence or confidence[chosen[0]] == max(confidence)


@given(st.integers(0, 40), st.integers(1, 40))
def test_even_quotas_sum_to_the_slots_and_never_grow(n_slots: int, n_steps: int) -> None:
    quotas = [even_quota(n_slots, n_steps, step) for step in range(n_steps)]
    assert sum(quotas) == n_slots
    assert quotas == sorted(quotas, reverse=True)
    assert quotas[0] - quotas[-1] <= 1
