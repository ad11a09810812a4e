"""What answers are worth, and what they cost: the measures of a report as pure functions of numbers. No torch, no file.

Every definition is in docs/counting.md; `Row` and `Report` are the shape in which report.json holds the results.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from trimode.errors import InvalidInput
from trimode.evaluation.counting import Cost, counted
from trimode.evaluation.intervals import Interval, paired_difference, ratio, share, wilson

__all__ = [
    "Answer", "Bounds", "Interval", "Position", "Report", "Row", "acceptance_by_position", "acceptance_length", "aup",
    "bounds", "identical_share", "measured", "paired_difference", "tokens_per_forward", "wilson",
]  # fmt: skip

PENALTY = 3.0  # alpha of `aup`
TOLERATED = 0.05  # accuracy that a point of `aup` may lie below the slowest one


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The numbers of one generation, as `Completion` has them. `positions` is its `acceptance`."""

    tokens: int  # EOS included
    forwards: Mapping[str, int]  # by kind; a `total` among them is ignored
    correct: bool | None = None  # None: not judged
    verify_tokens: int = 0  # made by verify forwards, the one after the accepted guesses included
    positions: tuple[tuple[int, int, int], ...] = ()  # of the first guess of all drafts, the second, ...
    same_as_ar: bool | None = None  # token for token; None: there is no answer of `ar` to compare with


class Bounds(TypedDict):
    """`Interval` in JSON."""

    value: float
    low: float
    high: float


class Position(TypedDict):
    """The i-th guess of a draft, i from 1, over all answers; a draft is what one verify forward verifies.

    Drafts differ in length: `of_drafts` counts those too short to have such a guess as not accepted, and its sum over
    all positions is the mean number of guesses accepted; `of_reached` is the chance of a guess once all before it held.
    """

    position: int
    verified: int  # drafts that had such a guess
    reached: int  # those of them where all guesses before it held
    accepted: int  # those of these where it held, too
    of_reached: float | None  # None where no draft came so far
    of_drafts: float


class Measures(TypedDict):
    """The part of a row that follows from its answers. None: nothing was judged, run, verified or compared."""

    n: int
    n_judged: int
    accuracy: Bounds | None
    tokens_per_forward: Bounds | None
    acceptance_length: Bounds | None
    acceptance: list[Position]
    identical_to_ar: Bounds | None


class Row(Measures):
    """One task in one setting."""

    task: str  # `all`: every judged task together
    setting: str  # mode and options, `diffusion:confidence_threshold=0.5`; with the task, unique in a report
    mode: str
    placement: str | None
    threshold: float | None  # settings that differ in this alone make a line of the plot


class Report(TypedDict):
    """What plots and tables are made of; a report may hold more."""

    checkpoint: str
    rows: list[Row]


def measured(answers: Sequence[Answer]) -> Measures:
    """Everything a row holds, of the answers of one task in one setting; there may be none."""
    judged = [answer.correct for answer in answers if answer.correct is not None]
    return Measures(
        n=len(answers), n_judged=len(judged),
        accuracy=_bounds(share(sum(judged), len(judged)) if judged else None),
        tokens_per_forward=_bounds(tokens_per_forward(answers)),
        acceptance_length=_bounds(acceptance_length(answers)), acceptance=acceptance_by_position(answers),
        identical_to_ar=_bounds(identical_share(answers)),
    )  # fmt: skip


def bounds(interval: Interval) -> Bounds:
    """Ready for JSON."""
    return Bounds(value=interval.value, low=interval.low, high=interval.high)


def _bounds(interval: Interval | None) -> Bounds | None:
    return None if interval is None else bounds(interval)


def tokens_per_forward(answers: Sequence[Answer], convention: str = "trimode") -> Interval | None:
    """Sum of tokens over sum of forwards, the interval over items that had any; None where none had.

    Other conventions: docs/counting.md.
    """
    costs = [Cost(tokens=answer.tokens, forwards=answer.forwards) for answer in answers]
    some = [(cost.tokens, n) for cost in costs if (n := counted(convention, cost))]
    return ratio([tokens for tokens, _ in some], [n for _, n in some]) if some else None


def acceptance_length(answers: Sequence[Answer]) -> Interval | None:
    """Tokens made by verify forwards over verify forwards, bonus included; None where nothing was verified."""
    some = [answer for answer in answers if answer.forwards.get("verify", 0)]
    if not some:
        return None
    return ratio([answer.verify_tokens for answer in some], [answer.forwards["verify"] for answer in some])


def acceptance_by_position(answers: Sequence[Answer]) -> list[Position]:
    """How many guesses held at each place of a draft; empty where nothing was verified."""
    longest = max((len(answer.positions) for answer in answers), default=0)
    totals = [
        [sum(answer.positions[i][part] for answer in answers if i < len(answer.positions)) for part in range(3)]
        for i in range(longest)
    ]
    return [
        Position(
            position=i + 1, verified=verified, reached=reached, accepted=accepted,
            of_reached=accepted / reached if reached else None, of_drafts=accepted / totals[0][0],
        )
        for i, (verified, reached, accepted) in enumerate(totals) if verified
    ]  # fmt: skip


def identical_share(answers: Sequence[Answer]) -> Interval | None:
    """Share of answers that are those of `ar`, token for token; None where none was compared."""
    compared = [answer.same_as_ar for answer in answers if answer.same_as_ar is not None]
    return share(sum(compared), len(compared)) if compared else None


def aup(points: Sequence[tuple[float, float]], best: float) -> float:
    """Accuracy under parallelism of a sweep: its points are (tokens per forward, accuracy in [0, 1]).

    In order of speed, (t_1, y_1) the slowest; points with more than 5 % of accuracy less than y_1 are left out:
    100 * (t_1 y_1 + sum_i (t_i - t_{i-1}) (y_i W(y_i) + y_{i-1} W(y_{i-1})) / 2), W(y) = min(exp(-3 (1 - y / best)), 1)
    (arXiv 2601.07568, and its authors' code). `best` is the highest accuracy of everything that is compared.
    """
    if not points or not 0 < best <= 1 or not all(t > 0 and 0 <= y <= 1 for t, y in points):
        raise InvalidInput("aup needs points of tokens per forward above 0 and accuracy in [0, 1], and best in (0, 1]")
    ordered = sorted(points)
    slowest, start = ordered[0]
    kept = [(t, y) for t, y in ordered if y >= start - TOLERATED - 1e-9]
    worth = [y * min(math.exp(-PENALTY * (1 - y / best)), 1.0) for _, y in kept]
    widths = [kept[i][0] - kept[i - 1][0] for i in range(1, len(kept))]
    area = sum(width * (worth[i] + worth[i + 1]) / 2 for i, width in enumerate(widths))
    return 100 * (slowest * start + area)
