"""Noise is unbiased, exactly: every random path is enumerated, and ideal predictors get the exact likelihood."""

import math
import random
import re
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.chance import every_outcome
from tests.markov import LENGTH, STATES, markov_joint, surprise
from trimode.errors import InvalidInput
from trimode.numerics.noise import EPSILON, Noise, blocks, infill, late, level, masks

pytestmark = pytest.mark.medium

DOCS = Path(__file__).resolve().parents[2] / "docs" / "objectives.md"
PLAIN = Noise(block_sizes=(4,), all_masked_share=0.0)
TWO_VIEWS = Noise(block_sizes=(4,), all_masked_share=0.0, views=2)
SHARES = Noise(block_sizes=(4,), all_masked_share=0.0, scheme="sequence")


def expected_weights(n: int, noise: Noise) -> list[Fraction]:
    """Expected total weight of every slot of a block of n targets, over all views."""
    total = [Fraction(0)] * n
    for chance, views in every_outcome(lambda rng: masks(n, noise, rng)):
        for slots, weight in views:
            for slot in slots:
                total[slot] += chance * Fraction(weight).limit_denominator(2 * n)
    return total


@pytest.mark.parametrize("noise", [PLAIN, TWO_VIEWS, Noise(all_masked_share=0.25), Noise(drafts=True)])
@pytest.mark.parametrize("n", range(1, 9))
def test_the_expected_weight_of_every_slot_is_exactly_one(n: int, noise: Noise) -> None:
    assert expected_weights(n, noise) == [1] * n


@pytest.mark.parametrize(("noise", "share"), [(PLAIN, 1), (TWO_VIEWS, Fraction(1, 2))])
def test_every_number_of_masks_has_the_weight_of_the_any_order_bound(noise: Noise, share: Fraction) -> None:
    """1/k for a set of k: rounding a continuous level instead would give the all-masked block half of its share."""
    n, total = 6, Counter[int]()
    for chance, views in every_outcome(lambda rng: masks(n, noise, rng)):
        for slots, weight in views:
            total[len(slots)] += chance * Fraction(weight).limit_denominator(n)  # type: ignore[assignment]
            assert weight == (1 if len(slots) == n else float(share * n / len(slots)))
    assert total == {k: Fraction(1, k) for k in range(1, n + 1)}


@pytest.mark.parametrize("n", [1, 2, 5])
def test_two_views_mask_every_target_once(n: int) -> None:
    for _, views in every_outcome(lambda rng: masks(n, TWO_VIEWS, rng)):
        assert sorted(slot for slots, _ in views for slot in slots) == list(range(n))
        assert len(views) == (1 if len(views[0][0]) == n else 2)  # the second view of a full mask has nothing to show


def test_the_weights_of_shares_of_masks_are_their_inverse() -> None:
    share, total = 0.25, [Fraction(0)] * 4
    for chance, views in every_outcome(lambda rng: masks(4, SHARES, rng, share)):
        for slots, weight in views:
            assert slots and weight == 4.0
            for slot in slots:
                total[slot] += chance * 4
    assert total == [1] * 4


def test_a_share_of_masks_is_never_zero() -> None:
    class Edge(random.Random):
        t = 0.0

        def random(self) -> float:
            return self.t

    rng = Edge()
    assert level(SHARES, rng) == EPSILON
    rng.t = 0.5
    assert level(SHARES, rng) == pytest.approx(0.5 * (1 - EPSILON) + EPSILON, abs=1e-15)
    assert level(PLAIN, rng) is None


noises = st.sampled_from([PLAIN, TWO_VIEWS, SHARES, Noise(half_life=0.1), Noise(half_life=1.0), Noise(drafts=True)])


@given(st.integers(1, 40), noises, st.integers())
def test_masked_slots_are_in_order_in_range_and_never_none(n: int, noise: Noise, seed: int) -> None:
    rng = random.Random(seed)
    for slots, weight in masks(n, noise, rng, level(noise, rng)):
        assert list(slots) == sorted(set(slots))
        assert 0 <= slots[0] <= slots[-1] < n
        assert 0 < weight <= max(n, 1 / EPSILON)


@pytest.mark.parametrize("noise", [Noise(all_masked_share=0.25), Noise(all_masked_share=0.25, views=2)])
def test_blocks_all_masked_come_as_often_as_they_should(noise: Noise) -> None:
    outcomes = list(every_outcome(lambda rng: masks(5, noise, rng)))
    full = sum(chance for chance, views in outcomes if views == (((0, 1, 2, 3, 4), 1.0),))
    assert full == Fraction(1, 4) + Fraction(3, 4) * Fraction(1, 5)


@given(st.integers(0, 30), st.integers(0, 40), st.integers(1, 9), st.floats(0, 1), st.integers())
def test_blocks_tile_the_targets(start: int, length: int, size: int, aligned: float, seed: int) -> None:
    edges = list(blocks(start, start + length, size, random.Random(seed), aligned))
    if length == 0:
        assert edges == []
        return
    assert (edges[0][0], edges[-1][1]) == (start, start + length)
    assert all(left[1] == right[0] for left, right in pairwise(edges))
    widths = [stop - begin for begin, stop in edges]
    assert all(width == size for width in widths[1:-1])
    assert all(1 <= width <= size for width in widths)


@pytest.mark.parametrize("size", [1, 2, 8])
@pytest.mark.parametrize("aligned", [Fraction(0), Fraction(1, 2)])
def test_blocks_are_aligned_as_often_as_asked_and_else_have_any_phase(size: int, aligned: Fraction) -> None:
    first: Counter[int] = Counter()
    for chance, edges in every_outcome(lambda rng: list(blocks(3, 3 + 5 * size, size, rng, float(aligned)))):
        first[edges[0][1] - edges[0][0]] += chance  # type: ignore[assignment]
    share = (1 - aligned) / size
    assert first == {width: share + (aligned if width == size else 0) for width in range(1, size + 1)}


@given(st.integers(0, 50), st.integers(8, 300), st.integers(1, 200), st.integers())
def test_an_infill_canvas_has_a_hole_and_a_suffix_in_bounds(edge: int, room: int, spare: int, seed: int) -> None:
    stop, end = infill(edge, edge + room, spare, random.Random(seed))
    assert edge < stop < end <= edge + room
    assert 8 <= end - edge <= 128
    assert end - stop <= spare


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (dict(block_sizes=()), "block_sizes is (), allowed are whole numbers, each at least 1"),
        (dict(block_sizes=(8, 0)), "block_sizes is (8, 0), allowed are whole numbers, each at least 1"),
        (dict(scheme="word"), "scheme is 'word', allowed are block, sequence"),
        (dict(all_masked_share=1.5), "all_masked_share is 1.5, allowed is 0.0 to 1.0"),
        (dict(half_life=0.0), "half_life is 0.0, allowed is above 0.0 and at most 1.0"),
        (dict(views=3), "views is 3, allowed is 1 to 2"),
        (dict(infill_share=-0.1), "infill_share is -0.1, allowed is 0.0 to 1.0"),
        (dict(scheme="sequence", views=2), "scheme sequence and views 2 exclude each other: leave one of them out"),
        (dict(views=2, half_life=0.1), "views 2 and half_life exclude each other: leave one of them out"),
        (dict(drafts=True, infill_share=0.1), "drafts and infill_share exclude each other: leave one of them out"),
        (dict(drafts=True, block_sizes=(1, 1)), "block_sizes is (1, 1), allowed with drafts is a block of at least 2"),
    ],
)
def test_noise_that_means_nothing_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{re.escape(said)}$"):
        Noise(**options)


def test_the_enumeration_agrees_with_a_real_generator() -> None:
    """The stand-in of tests/chance.py draws from the same distribution as random.Random."""
    noise, n, rounds, rng = Noise(all_masked_share=0.5, views=2), 4, 20_000, random.Random(0)
    counts: Counter[Any] = Counter(masks(n, noise, rng) for _ in range(rounds))
    exact: Counter[Any] = Counter()
    for chance, views in every_outcome(lambda rng: masks(n, noise, rng)):
        exact[views] += chance  # type: ignore[assignment]
    assert set(counts) == set(exact)
    for views, chance in exact.items():
        assert abs(counts[views] / rounds - chance) < 5 * math.sqrt(chance * (1 - chance) / rounds)


# Late masks: k of n clocks that ring first, clock i with the rate exp(beta * (1 - k/n) * i).


def marginals(n: int, k: int, half_life: float) -> NDArray[np.float64]:
    """P(slot i is masked): it rings at time s and fewer than k others have rung by then, integrated over s."""
    rates = np.exp(math.log(2) / (half_life * n) * (1 - k / n) * np.arange(n))
    log_s = np.linspace(-25, 8, 4001)
    s = np.exp(log_s)
    rung = 1 - np.exp(-rates[:, None] * s)
    found = np.empty(n)
    for i in range(n):
        counts = np.zeros((k, s.size))  # P(j of the others have rung by s), j < k
        counts[0] = 1.0
        for other in set(range(n)) - {i}:
            counts[1:] = counts[1:] * (1 - rung[other]) + counts[:-1] * rung[other]
            counts[0] *= 1 - rung[other]
        found[i] = np.trapezoid(rates[i] * np.exp(-rates[i] * s) * counts.sum(0) * s, log_s)
    return found


PUBLISHED = {  # half_life 0.1, blocks of 16, slots 0, 4, 8, 12, 15
    2: (0.003, 0.011, 0.050, 0.214, 0.566),
    4: (0.012, 0.045, 0.153, 0.481, 0.820),
    8: (0.111, 0.247, 0.501, 0.811, 0.949),
    12: (0.474, 0.635, 0.791, 0.905, 0.957),
}
SLOTS = (0, 4, 8, 12, 15)


@pytest.mark.parametrize("k", PUBLISHED)
def test_late_masks_have_the_marginals_of_their_definition(k: int) -> None:
    exact, rounds, rng = marginals(16, k, 0.1), 4000, random.Random(k)
    assert exact.sum() == pytest.approx(k, abs=1e-6)
    assert exact[list(SLOTS)] == pytest.approx(PUBLISHED[k], abs=0.006)
    drawn = Counter(slot for _ in range(rounds) for slot in late(16, k, 0.1, rng))
    deviations = np.array([drawn[i] / rounds for i in range(16)]) - exact
    assert (np.abs(deviations) < 5 * np.sqrt(exact * (1 - exact) / rounds) + 1e-9).all()


@pytest.mark.parametrize("k", PUBLISHED)
def test_the_documentation_shows_these_marginals(k: int) -> None:
    row = next(line for line in DOCS.read_text("utf-8").splitlines() if line.startswith(f"| {k}/16 "))
    assert [float(x) for x in row.split("|")[2:-1]] == [round(float(x), 3) for x in marginals(16, k, 0.1)[list(SLOTS)]]


@pytest.mark.parametrize("half_life", [0.1, 0.25])
def test_the_documentation_shows_what_half_lives_make_of_the_weights(half_life: float) -> None:
    """k ~ U{1..16}, weight 16 / k."""
    row = next(line for line in DOCS.read_text("utf-8").splitlines() if line.startswith(f"| {half_life} |"))
    weights = sum(marginals(16, k, half_life) / k for k in range(1, 17))[list(SLOTS)]  # type: ignore[index]
    assert [float(x) for x in row.split("|")[2:-1]] == [round(float(x), 2) for x in weights]


def test_a_full_mask_knows_no_half_life() -> None:
    assert late(5, 5, 0.1, random.Random(0)) == (0, 1, 2, 3, 4)


# The bound of an ideal predictor, by enumeration.

Masks = Callable[[int], list[tuple[float, tuple[int, ...]]]]  # n -> (expected weight, masked slots)


def drawn(noise: Noise, share: float | None = None) -> Masks:
    @cache
    def of(n: int) -> list[tuple[float, tuple[int, ...]]]:
        total: Counter[tuple[int, ...]] = Counter()
        for chance, views in every_outcome(lambda rng: masks(n, noise, rng, share)):
            for slots, weight in views:
                total[slots] += float(chance) * weight  # type: ignore[assignment]
        return [(weight, slots) for slots, weight in total.items()]

    return of


def shares(lowest: float) -> Masks:
    """Shares of masks p ~ U[lowest, 1): the expected loss is a polynomial in p, which Gauss integrates exactly."""
    nodes, weights = np.polynomial.legendre.leggauss(LENGTH)
    levels = lowest + (1 - lowest) * (nodes + 1) / 2

    def of(n: int) -> list[tuple[float, tuple[int, ...]]]:
        return [
            (float(half) / 2 * weight, slots)
            for p, half in zip(levels.tolist(), weights, strict=True)
            for weight, slots in drawn(SHARES, p)(n)
        ]

    return of


def block_nelbo(joint: NDArray[np.float64], x: tuple[int, ...], size: int, masked: Masks) -> float:
    """The expected diffusion loss of the ideal predictor, over every way to cut and to mask."""
    total = 0.0
    for cut, edges in every_outcome(lambda rng: list(blocks(0, LENGTH, size, rng, 0.5))):
        for start, stop in edges:
            for weight, slots in masked(stop - start):
                hidden = {start + slot for slot in slots}
                known = set(range(stop)) - hidden
                total += float(cut) * weight * sum(surprise(joint, x, {i}, known) for i in hidden)
    return total


@pytest.mark.parametrize("masked", [drawn(PLAIN), drawn(TWO_VIEWS), shares(0.0)], ids=["block", "views", "sequence"])
@pytest.mark.parametrize("size", range(1, LENGTH + 1))
def test_the_bound_of_an_ideal_predictor_is_the_exact_likelihood_of_every_text(size: int, masked: Masks) -> None:
    joint, rng = markov_joint(0), random.Random(0)
    for _ in range(4):
        x = tuple(rng.randrange(STATES) for _ in range(LENGTH))
        nll = surprise(joint, x, set(range(LENGTH)), set())
        assert block_nelbo(joint, x, size, masked) == pytest.approx(nll, rel=1e-9)


@pytest.mark.parametrize("noise", [PLAIN, TWO_VIEWS])
@pytest.mark.parametrize("size", range(1, LENGTH + 1))
def test_the_bound_averages_to_the_entropy_of_the_chain(size: int, noise: Noise) -> None:
    joint = markov_joint(1)
    entropy = -float((joint * np.log(joint)).sum())
    texts = [x for x in product(range(STATES), repeat=LENGTH) if joint[x] > 0]
    assert sum(joint[x] * block_nelbo(joint, x, size, drawn(noise)) for x in texts) == pytest.approx(entropy, rel=1e-9)


@pytest.mark.parametrize("size", [1, 3, LENGTH])
def test_shares_of_masks_as_published_miss_the_likelihood_by_a_thousandth_at_most(size: int) -> None:
    """Leaving out shares below EPSILON moves the expectation by less than EPSILON / (1 - EPSILON), relatively."""
    joint, x = markov_joint(0), (0, 2, 1, 1, 0)
    nll = surprise(joint, x, set(range(LENGTH)), set())
    missed = block_nelbo(joint, x, size, shares(EPSILON)) / nll - 1
    assert abs(missed) < EPSILON / (1 - EPSILON)
