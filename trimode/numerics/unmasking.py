"""Which slots of a canvas to commit, from their confidences. Pure functions of numbers."""

from collections.abc import Sequence


def by_confidence(confidence: Sequence[float]) -> list[int]:
    """Indices, most confident first, earlier first among equals."""
    return sorted(range(len(confidence)), key=lambda i: (-confidence[i], i))


def most_confident(confidence: Sequence[float], n: int) -> list[int]:
    """The n most confident."""
    return by_confidence(confidence)[:n]


def above_threshold(confidence: Sequence[float], threshold: float) -> list[int]:
    """Every one that reaches the threshold, and the most confident in any case."""
    order = by_confidence(confidence)
    return order[:1] + [i for i in order[1:] if confidence[i] >= threshold]


def even_quota(n_slots: int, n_steps: int, step: int) -> int:
    """Slots to commit at `step` when n_slots are spread evenly over n_steps, the remainder to the earliest."""
    return n_slots // n_steps + (step < n_slots % n_steps)
