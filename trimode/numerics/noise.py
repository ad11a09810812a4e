"""How a block of text becomes a canvas with masks: integers and probabilities, no model and no tensors.

A level is drawn as k ~ U{1..n} with weight n / k for each of the k masked targets, which is exactly the any-order
autoregressive bound (arXiv 2110.02037, eq. 6); drawing t continuously and rounding t * n would be biased.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Which canvases training sees.

    block_sizes: one is drawn per document. draft_share: the part of blocks shown as a drafter sees them, a clean prefix
    (empty in half of the cases) and then masks only, each with weight 1: an emphasis, not part of the bound.
    """

    block_sizes: tuple[int, ...]
    draft_share: float


def blocks(start: int, stop: int, size: int, rng: random.Random) -> Iterator[tuple[int, int]]:
    """Cut [start, stop) into blocks of `size`, at phase 0 in half of the cases, else at a random phase.

    Inference starts blocks wherever the committed text ends, so no phase may be special.
    """
    first = size if rng.random() < 0.5 else rng.randint(1, size)
    edge = start
    while edge < stop:
        end = min(edge + (first if edge == start else size), stop)
        yield edge, end
        edge = end


def masked_slots(n: int, noise: Noise, rng: random.Random) -> tuple[list[int], float]:
    """Which of n targets to mask, and the weight of each masked one."""
    if rng.random() < noise.draft_share:
        prefix = 0 if rng.random() < 0.5 else rng.randrange(n)
        return list(range(prefix, n)), 1.0
    k = rng.randint(1, n)
    return sorted(rng.sample(range(n), k)), n / k
