"""How much of a draft the verifier agrees with. Pure functions of integers."""

from collections.abc import Sequence


def accepted_length(draft: Sequence[int], verified: Sequence[int]) -> int:
    """How many leading drafts equal the verifier's own choices; verified[i] is its choice where draft[i] stands."""
    for index, (guess, truth) in enumerate(zip(draft, verified, strict=False)):
        if guess != truth:
            return index
    return min(len(draft), len(verified))
