"""What the engine tells whoever listens: one event per request and forward that changed something. Values only."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from trimode.spans import FinishReason, Kind

SlotState = Literal["masked", "draft", "fixed", "revised", "remasked", "accepted", "rejected"]
Cause = Literal["low_confidence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A token with its log-probability where it was chosen (or, of a prompt, where it stands), and the likeliest there.

    Untempered and before any other parameter of sampling acts; the mask has its share.
    """

    token: int
    logprob: float
    best: tuple[tuple[int, float], ...] = ()  # tokens and log-probabilities, the likeliest first
    rank: int | None = None  # of prompt tokens: 1 where it is the likeliest


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A place of the answer, as a forward has left it.

    masked    nothing stands there yet               accepted  a guess that was verified: it is final now
    draft     a guess, which may still change        rejected  a guess that failed, or stood behind one that did
    fixed     a token that no forward changes        remasked  a guess taken back; `cause` says why
    revised   a token in the place of another
    """

    position: int  # in the answer, from 0
    token: int | None  # None where a mask stands
    text: str  # of neighbours together: a character of several tokens stands with the last of them
    state: SlotState
    confidence: float | None  # probability of the token where it was chosen; None of masks, and of what was looked up
    cause: Cause | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What somebody who watches sees of a forward, beside the final text."""

    step: int  # forwards since the last final token, this one included
    forwards: int  # of the request so far
    settled: tuple[Slot, ...]  # tokens that this forward made final, in order, then the guesses that it rejected
    canvas: tuple[Slot, ...]  # the open canvas, which follows the final text


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """New final tokens and the text that became certain.

    `named` tells of the tokens where log-probabilities were asked for or somebody watches, `view` only of the latter.
    """

    request: int
    kind: Kind | None  # of the forward; None for an abort
    tokens: tuple[int, ...]
    text: str
    finish: FinishReason | None = None
    named: tuple[Named, ...] | None = None
    view: View | None = None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        told: dict[str, Any] = plain(asdict(self))
        return told


def plain(value: Any) -> Any:
    """A value as JSON would give it back: lists for tuples."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple) else value
