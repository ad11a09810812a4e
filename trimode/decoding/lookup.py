"""Prompt lookup: what followed the last time the text's ending stood in it (Saxena 2023). Integers only."""

from array import array
from collections.abc import Sequence

LONGEST, SHORTEST = 4, 2  # tokens of an ending that must agree


def lookup(tokens: Sequence[int], n: int) -> tuple[int, ...]:
    """n tokens that followed the latest earlier occurrence of the longest matching ending, or none.

    Where the text ends before there are n, it is taken to go on in the same way: with what it repeats.
    """
    data = array("q", tokens).tobytes()  # searched as bytes: a step must not scan a long text in Python
    for size in range(min(LONGEST, len(tokens) - 1), SHORTEST - 1, -1):
        ending, stop = data[-8 * size :], len(data) - 8
        while (at := data.rfind(ending, 0, stop)) >= 0:
            if at % 8 == 0:
                follow = tuple(tokens[at // 8 + size : at // 8 + size + n])
                return tuple(follow[i % len(follow)] for i in range(n))
            stop = at + len(ending) - 1
    return ()
