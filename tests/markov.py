"""A Markov chain small enough to know everything about, and what an ideal predictor of it pays."""

import math
from collections.abc import Set
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

LENGTH, STATES = 5, 3


def markov_joint(seed: int) -> NDArray[np.float64]:
    """p(x_0 .. x_4) as an array with one axis per position."""
    rng = np.random.default_rng(seed)
    start, step = rng.dirichlet(np.ones(STATES)), rng.dirichlet(np.full(STATES, 0.5), STATES)
    joint = np.zeros((STATES,) * LENGTH)
    for x in product(range(STATES), repeat=LENGTH):
        joint[x] = start[x[0]] * math.prod(step[a, b] for a, b in pairwise(x))
    return joint


def probability(joint: NDArray[np.float64], x: tuple[int, ...], known: Set[int]) -> float:
    """p(x_i for i in known), all else summed out."""
    return float(joint[tuple(x[i] if i in known else slice(None) for i in range(LENGTH))].sum())


def surprise(joint: NDArray[np.float64], x: tuple[int, ...], hidden: Set[int], known: Set[int]) -> float:
    """-log p(x_i for i in hidden | x_known): what the ideal predictor pays."""
    return math.log(probability(joint, x, known)) - math.log(probability(joint, x, known | hidden))
