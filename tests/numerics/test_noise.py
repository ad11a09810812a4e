"""Noise is unbiased, exactly: every random path is enumerated, and ideal predictors get the exact likelihood."""

import math
import random
from collections import Counter
from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.chance import every_outcome
from trimode.numerics.noise import Noise, blocks, masked_slots

UNBIASED = Noise(block_sizes=(4,), draft_share=0.0)
DRAFTS = Noise(block_sizes=(4,), draft_share=1.0)


def expected_weights(n: int, noise: Noise) -> list[Fraction]:
    """Expected total weight of every slot of a block of n targets."""
    total = [Fraction(0)] * n
    for chance, (slots, weight) in every_outcome(lambda rng: masked_slots(n, noise, rng)):
        for slot in slots:
            total[slot] += chance * Fraction(weight).limit_denominator(n)
    return total


@pytest.mark.parametrize("n", range(1, 9))
def test_the_expected_weight_of_every_slot_is_exactly_one(n: int) -> None:
    assert expected_weights(n, UNBIASED) == [1] * n


def test_any_number_of_masks_is_equally_likely() -> None:
    """Rounding a continuous level instead would give the all-masked block half of its share."""
    counts: Counter[int] = Counter()
    for chance, (slots, weight) in every_outcome(lambda rng: masked_slots(6, UNBIASED, rng)):
        counts[len(slots)] += chance  # type: ignore[assignment]
        assert weight == 6 / len(slots)
    assert counts == {k: Fraction(1, 6) for k in range(1, 7)}


@given(st.integers(1, 40), st.floats(0, 1), st.integers())
def test_masked_slots_are_distinct_in_range_and_never_none(n: int, draft_share: float, seed: int) -> None:
    slots, weight = masked_slots(n, Noise(block_sizes=(4,), draft_share=draft_share), random.Random(seed))
    assert slots == sorted(set(slots))
    assert 0 <= slots[0] <= slots[-1] < n
    assert 0 < weight <= n


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_block_seen_by_a_drafter_is_a_clean_prefix_then_masks_of_weight_one(n: int) -> None:
    prefixes: Counter[int] = Counter()
    for chance, (slots, weight) in every_outcome(lambda rng: masked_slots(n, DRAFTS, rng)):
        assert slots == list(range(slots[0], n))
        assert weight == 1.0
        prefixes[slots[0]] += chance  # type: ignore[assignment]
    half, share = Fraction(1, 2), Fraction(1, 2 * n)
    assert prefixes == {prefix: share + (half if prefix == 0 else 0) for prefix in range(n)}


def test_draft_blocks_come_as_often_as_they_should() -> None:
    noise = Noise(block_sizes=(4,), draft_share=0.25)
    outcomes = list(every_outcome(lambda rng: masked_slots(5, noise, rng)))
    drafts = sum(chance for chance, (slots, weight) in outcomes if weight == 1.0 and len(slots) < 5)
    assert drafts == Fraction(1, 4) * Fraction(1, 2) * Fraction(4, 5)  # 4 of 5 prefixes are not empty


@given(st.integers(0, 30), st.integers(0, 40), st.integers(1, 9), st.integers())
def test_blocks_tile_the_targets(start: int, length: int, size: int, seed: int) -> None:
    edges = list(blocks(start, start + length, size, random.Random(seed)))
    if length == 0:
        assert edges == []
        return
    assert (edges[0][0], edges[-1][1]) == (start, start + length)
    assert all(left[1] == right[0] for left, right in pairwise(edges))
    widths = [stop - begin for begin, stop in edges]
    assert all(width == size for width in widths[1:-1])
    assert all(1 <= width <= size for width in widths)


@pytest.mark.parametrize("size", [1, 2, 8])
def test_blocks_start_at_phase_zero_half_of_the_time_and_else_at_any_phase(size: int) -> None:
    first: Counter[int] = Counter()
    for chance, edges in every_outcome(lambda rng: list(blocks(3, 3 + 5 * size, size, rng))):
        first[edges[0][1] - edges[0][0]] += chance  # type: ignore[assignment]
    share = Fraction(1, 2 * size)
    assert first == {width: share + (Fraction(1, 2) if width == size else 0) for width in range(1, size + 1)}


def test_the_enumeration_agrees_with_a_real_generator() -> None:
    """The stand-in of tests/chance.py draws from the same distribution as random.Random."""
    noise, n, rounds, rng = Noise(block_sizes=(4,), draft_share=0.5), 4, 20_000, random.Random(0)
    total = np.zeros(n)
    for _ in range(rounds):
        slots, weight = masked_slots(n, noise, rng)
        total[slots] += weight
    exact = np.array([float(weight) for weight in expected_weights(n, noise)])
    assert np.abs(total / rounds - exact).max() < 0.05  # five standard errors


# A Markov chain small enough to know everything about.

LENGTH, STATES = 5, 3


def markov_joint(seed: int) -> NDArray[np.float64]:
    """p(x_0 .. x_4) as an array with one axis per position."""
    rng = np.random.default_rng(seed)
    start, step = rng.dirichlet(np.ones(STATES)), rng.dirichlet(np.full(STATES, 0.5), STATES)
    joint = np.zeros((STATES,) * LENGTH)
    for x in product(range(STATES), repeat=LENGTH):
        joint[x] = start[x[0]] * math.prod(step[a, b] for a, b in pairwise(x))
    return joint


def probability(joint: NDArray[np.float64], x: tuple[int, ...], known: set[int]) -> float:
    """p(x_i for i in known), all else summed out."""
    return float(joint[tuple(x[i] if i in known else slice(None) for i in range(LENGTH))].sum())


def surprise(joint: NDArray[np.float64], x: tuple[int, ...], i: int, known: set[int]) -> float:
    """-log p(x_i | x_known): what the ideal predictor pays."""
    return math.log(probability(joint, x, known)) - math.log(probability(joint, x, known | {i}))


def block_nelbo(joint: NDArray[np.float64], x: tuple[int, ...], size: int) -> float:
    """The expected diffusion loss of the ideal predictor, over every way to cut and to mask."""
    total = 0.0
    for cut, edges in every_outcome(lambda rng: list(blocks(0, LENGTH, size, rng))):
        for start, stop in edges:
            for chance, (slots, weight) in every_outcome(lambda rng, n=stop - start: masked_slots(n, UNBIASED, rng)):
                masked = {start + slot for slot in slots}
                known = set(range(stop)) - masked
                total += float(cut * chance) * weight * sum(surprise(joint, x, i, known) for i in masked)
    return total


@pytest.mark.parametrize("size", [1, 2, 3, LENGTH])
def test_the_bound_of_an_ideal_predictor_is_the_exact_likelihood_of_every_text(size: int) -> None:
    joint, rng = markov_joint(0), random.Random(0)
    for _ in range(4):
        x = tuple(rng.randrange(STATES) for _ in range(LENGTH))
        nll = -math.log(probability(joint, x, set(range(LENGTH))))
        assert block_nelbo(joint, x, size) == pytest.approx(nll, rel=1e-9)


def test_the_bound_averages_to_the_entropy_of_the_chain() -> None:
    joint = markov_joint(1)
    entropy = -float((joint * np.log(joint)).sum())
    texts = product(range(STATES), repeat=LENGTH)
    assert sum(joint[x] * block_nelbo(joint, x, 2) for x in texts) == pytest.approx(entropy, rel=1e-9)
