"""How sure a measured share, difference or ratio is: 95 % intervals as pure functions of counts. No randomness.

`Z` is the normal quantile of 95 %. Items are taken as drawn at random; an interval says nothing of other tasks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trimode.errors import InvalidInput

Z = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate and the ends of its interval; metrics.py: `bounds` of it is how a report holds it."""

    value: float
    low: float
    high: float


def wilson(successes: int, n: int, z: float = Z) -> tuple[float, float]:
    """Score interval of a share, (low, high); (0, 1) where nothing was tried (E. B. Wilson, JASA 22, 1927)."""
    if not 0 <= successes <= n:
        raise InvalidInput(f"successes is {successes}, allowed are 0 to n, which is {n}")
    if n == 0:
        return 0.0, 1.0
    share, spread = successes / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    # At the ends the limits are 0 and 1 exactly, which the arithmetic misses by its last bits.
    return 0.0 if successes == 0 else middle - half, 1.0 if successes == n else middle + half


def share(successes: int, n: int, z: float = Z) -> Interval:
    """A share with its Wilson interval. Raises InvalidInput for n = 0: there is nothing to tell."""
    if n < 1:
        raise InvalidInput(f"n is {n}, a share needs at least 1 item")
    low, high = wilson(successes, n, z)
    return Interval(value=successes / n, low=low, high=high)


def paired_difference(first: Sequence[bool], second: Sequence[bool], z: float = Z) -> Interval:
    """Accuracy of `first` minus that of `second` on the same items, in [-1, 1].

    R. G. Newcombe, Statistics in Medicine 17 (1998) 2635, method 10: the Wilson limits of both accuracies, squared and
    added, less twice their product times the correlation of the answers. Formulas: docs/counting.md.
    """
    n = len(first)
    if n != len(second) or n == 0:
        raise InvalidInput(f"{n} and {len(second)} items are no pairs: as many of both are needed, at least 1")
    both = sum(a and b for a, b in zip(first, second, strict=True))
    right_1, right_2 = sum(first), sum(second)
    p_1, p_2 = right_1 / n, right_2 / n
    (low_1, high_1), (low_2, high_2) = wilson(right_1, n, z), wilson(right_2, n, z)
    phi = _correlation(both, right_1, right_2, n)
    below = _squared_and_added(p_1 - low_1, high_2 - p_2, phi)
    above = _squared_and_added(high_1 - p_1, p_2 - low_2, phi)
    return Interval(value=p_1 - p_2, low=p_1 - p_2 - below, high=p_1 - p_2 + above)


def _squared_and_added(a: float, b: float, phi: float) -> float:
    return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))


def _correlation(both: int, right_1: int, right_2: int, n: int) -> float:
    """Phi of the table of both, only the first, only the second, neither; a positive one is shrunk by n / 2."""
    scale = right_1 * (n - right_1) * right_2 * (n - right_2)
    if scale == 0:
        return 0.0
    product = both * (n - right_1 - right_2 + both) - (right_1 - both) * (right_2 - both)
    return (max(product - n / 2, 0.0) if product > 0 else product) / math.sqrt(scale)


def ratio(numerators: Sequence[float], denominators: Sequence[float], z: float = Z) -> Interval:
    """Sum over sum, one entry of both per item, with the interval of the delta method.

    Standard error: sqrt(n / (n - 1) * sum_i (a_i - ratio * b_i)^2) / sum_i b_i, as `Estimate.document_error` has it
    (W. G. Cochran, Sampling Techniques, chapter 6). One item tells nothing of the spread: all three are its value.
    """
    total, n = sum(denominators), len(denominators)
    if len(numerators) != n or total <= 0:
        raise InvalidInput(f"{len(numerators)} numerators over {n} denominators that add up to {total} are no ratio")
    value = sum(numerators) / total
    squares = sum((a - value * b) ** 2 for a, b in zip(numerators, denominators, strict=True))
    half = z * math.sqrt(squares * n / max(n - 1, 1)) / total
    return Interval(value=value, low=value - half, high=value + half)
