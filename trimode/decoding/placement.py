"""Where drafting canvases stand and how much of a draft is worth verifying. Pure functions of confidences and costs."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from operator import mul

from trimode.cost import CostModel

LENGTHS = (3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64)  # draft lengths to choose from


def likelihoods(confidence: Sequence[float]) -> list[float]:
    """How probable it is that exactly the first 0, 1, ... len(confidence) guesses hold, if they are independent."""
    survives = [1.0, *accumulate(confidence, mul)]
    return [p * (1 - c) for p, c in zip(survives, confidence, strict=False)] + [survives[-1]]


def likeliest(confidence: Sequence[float], n: int) -> list[int]:
    """The n likeliest acceptance lengths, in order of likelihood, the longer first among equals."""
    chance = likelihoods(confidence)
    return sorted(range(len(chance)), key=lambda a: (-chance[a], -a))[:n]


def joint_above(confidence: Sequence[float], threshold: float) -> int:
    """How many leading guesses hold together with a probability of at least `threshold`."""
    return sum(chance >= threshold for chance in accumulate(confidence, mul))


def worth_verifying(confidence: Sequence[float], cost: CostModel, width: int) -> int:
    """How many leading guesses to verify so that tokens per cost is highest, the next draft of `width` included.

    0 where a plain step is cheaper per token.
    """
    best, best_rate = 0, 1 / cost(1)
    sunk = cost(1, width)  # the forward that makes the next draft gives a token as well
    made = 2.0
    for n, chance in enumerate(accumulate(confidence, mul), start=1):
        made += chance
        rate = made / (cost(n + 1) + sunk)
        if rate > best_rate:
            best, best_rate = n, rate
    return best


def worth_placing(lengths: Sequence[int], confidence: Sequence[float], cost: CostModel, width: int) -> list[int]:
    """Those of the acceptance lengths where a canvas saves more, times its chance to be used, than it costs here.

    It spares a draft forward, which would have given a token worth about half a plain step at the pace of speculation.
    """
    chance, rows = likelihoods(confidence), len(confidence) + 1
    saved = cost(1, width) - cost(1) / 2
    return [
        length
        for i, length in enumerate(lengths)
        if chance[length] * saved > cost(rows, (i + 1) * width) - cost(rows, i * width)
    ]


@lru_cache(maxsize=4096)
def best_length(acceptance: float, cost: CostModel, longest: int) -> int:
    """The draft length with the most tokens per cost when every guess holds with probability `acceptance`."""

    def rate(length: int) -> float:
        held: float = sum(accumulate([acceptance] * (length - 1), mul))
        return (2 + held) / (cost(1, length) + cost(1 + round(held)))

    return max((n for n in (*LENGTHS, longest) if n <= longest), key=rate)


@lru_cache(maxsize=4096)
def can_pay(cost: CostModel, longest: int) -> bool:
    """Whether drafts of which every guess holds would make a token for less than a plain step does.

    At best the next draft rides with the verification of the last: n guesses and a canvas make n + 1 tokens.
    """
    lengths = [n for n in (2, *LENGTHS, longest) if 2 <= n <= longest]
    return any(cost(n, n) < n * cost(1) or cost(1, n) + cost(n) < (n + 1) * cost(1) for n in lengths)
