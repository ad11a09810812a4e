"""A measure is its definition, computed by hand on few answers."""

import math
from collections.abc import Mapping
from typing import Any

import pytest

from tests.fakes import alone, lively_model
from trimode.engine.completion import completion
from trimode.errors import InvalidInput
from trimode.evaluation.counting import Cost
from trimode.evaluation.counting import tokens_per_forward as by_sums
from trimode.evaluation.intervals import Interval, ratio, share
from trimode.evaluation.metrics import (
    Answer,
    acceptance_by_position,
    acceptance_length,
    aup,
    bounds,
    identical_share,
    measured,
    tokens_per_forward,
)


def answer(tokens: int, forwards: Mapping[str, int], **more: Any) -> Answer:
    return Answer(**({"tokens": tokens, "forwards": forwards} | more))


FAST = answer(100, {"prefill": 1, "verify": 9}, verify_tokens=99, correct=True,
              positions=((9, 9, 9), (9, 9, 8), (5, 5, 4)))  # fmt: skip
SLOW = answer(10, {"prefill": 1, "decode": 5, "verify": 2, "total": 8}, verify_tokens=4,
              positions=((2, 2, 1), (2, 1, 1)), correct=False, same_as_ar=True)  # fmt: skip
PLAIN = answer(7, {"prefill": 1, "decode": 6})


def test_tokens_per_forward_is_a_ratio_of_sums_by_every_convention() -> None:
    answers = [FAST, SLOW, PLAIN]
    costs = [Cost(tokens=each.tokens, forwards=each.forwards) for each in answers]
    assert by_sums("trimode", costs) == pytest.approx(117 / 25)
    for convention in ("trimode", "hf_linear_spec", "hf_quadratic"):
        found = tokens_per_forward(answers, convention)
        assert found is not None and found.value == pytest.approx(by_sums(convention, costs))


def test_answers_of_ar_are_one_token_a_forward_without_doubt() -> None:
    found = tokens_per_forward([PLAIN, answer(3, {"prefill": 1, "decode": 2})])
    assert found == Interval(value=1.0, low=1.0, high=1.0)


def test_acceptance_length_is_tokens_of_verify_forwards_over_verify_forwards() -> None:
    found = acceptance_length([FAST, SLOW, PLAIN])
    assert found is not None and found.value == pytest.approx(103 / 11)
    assert acceptance_length([PLAIN]) is None


def test_acceptance_by_position_is_of_all_drafts_and_of_those_that_came_so_far() -> None:
    first, second, third = acceptance_by_position([FAST, SLOW, PLAIN])
    assert (first["position"], first["verified"], first["reached"], first["accepted"]) == (1, 11, 11, 10)
    assert (second["of_reached"], second["of_drafts"]) == pytest.approx((9 / 10, 9 / 11))
    assert (third["of_reached"], third["of_drafts"]) == pytest.approx((4 / 5, 4 / 11))
    hopeless = answer(2, {"verify": 2}, verify_tokens=2, positions=((2, 2, 0), (2, 0, 0)))
    assert [place["of_reached"] for place in acceptance_by_position([hopeless])] == [0.0, None]
    assert acceptance_by_position([PLAIN]) == []


def test_accepted_shares_of_all_drafts_add_up_to_the_acceptance_length_without_its_bonus() -> None:
    made = answer(18, {"verify": 5}, verify_tokens=18, positions=((5, 5, 5), (5, 5, 4), (3, 3, 3), (2, 2, 1)))
    length = acceptance_length([made])
    assert length is not None
    assert sum(place["of_drafts"] for place in acceptance_by_position([made])) + 1 == pytest.approx(length.value)


def test_places_and_lengths_of_a_real_run_agree() -> None:
    done = completion(alone(lively_model(), "draft of 3", [5, 6, 7], max_tokens=40))
    assert done.acceptance and done.acceptance_length
    made = round(done.acceptance_length * done.forwards["verify"])
    places = acceptance_by_position(
        [answer(done.completion_tokens, done.forwards, verify_tokens=made, positions=done.acceptance)]
    )
    assert places[0]["verified"] == places[0]["reached"] == done.forwards["verify"]
    assert [place["reached"] for place in places[1:]] == [place["accepted"] for place in places[:-1]]  # of one length
    # The last draft's bonus may stand beyond the end of the text.
    bonus = 1 / done.forwards["verify"]
    assert sum(place["of_drafts"] for place in places) + 1 == pytest.approx(done.acceptance_length, abs=bonus)


def test_a_row_holds_what_was_judged_run_and_compared() -> None:
    found = measured([FAST, SLOW, PLAIN])
    assert (found["n"], found["n_judged"]) == (3, 2)
    assert found["accuracy"] is not None and found["accuracy"]["value"] == 0.5
    assert found["tokens_per_forward"] == bounds(ratio([100, 10, 7], [10, 8, 7]))
    assert found["identical_to_ar"] is not None and found["identical_to_ar"]["value"] == 1.0


def test_what_was_not_measured_is_none() -> None:
    found = measured([answer(7, {"decode": 7})])
    names = ("accuracy", "acceptance_length", "identical_to_ar")
    assert [name for name in names if found[name] is not None] == []  # type: ignore[literal-required]
    assert identical_share([PLAIN]) is None


def test_what_was_never_run_has_no_speed_and_does_not_widen_the_interval_of_the_rest() -> None:
    refused = answer(0, {}, correct=False)
    assert measured([])["tokens_per_forward"] is measured([refused])["tokens_per_forward"] is None
    assert measured([refused])["accuracy"] == bounds(share(0, 1))
    assert tokens_per_forward([FAST, refused, SLOW]) == tokens_per_forward([FAST, SLOW])


def test_aup_of_a_sweep_without_loss_is_its_speed_times_its_accuracy() -> None:
    assert aup([(2.0, 0.9), (5.0, 0.9)], best=0.9) == pytest.approx(100 * 5 * 0.9)
    assert aup([(3.0, 0.8)], best=0.9) == pytest.approx(240)  # a single point is not weighed


def test_aup_weighs_lost_accuracy_and_leaves_out_what_lost_too_much() -> None:
    worth = {y: y * math.exp(-3 * (1 - y / 0.9)) for y in (0.86, 0.88)}
    by_hand = 100 * (1 * 0.9 + 2 * (0.9 + worth[0.88]) / 2 + 1 * (worth[0.88] + worth[0.86]) / 2)
    points = [(4.0, 0.86), (1.0, 0.9), (3.0, 0.88), (9.0, 0.84)]
    assert aup(points, best=0.9) == pytest.approx(by_hand)
    assert aup(points[:3], best=0.9) == pytest.approx(by_hand)
    assert aup([(1.0, 0.93), (2.0, 0.88)], best=0.93) > 93  # exactly 5 points are not too much
    assert aup(points, best=0.8) == pytest.approx(100 * (0.9 + (0.9 + 0.88) + (0.88 + 0.86) / 2))  # never above 1


@pytest.mark.parametrize("points", [[], [(0.0, 0.5)], [(1.0, 50.0)]])
def test_a_sweep_that_cannot_be_is_refused(points: list[tuple[float, float]]) -> None:
    with pytest.raises(InvalidInput, match="aup needs points"):
        aup(points, best=0.9)
