"""What a request has come to, as a value: the answer with its cost."""

from dataclasses import asdict, dataclass
from typing import Any

from trimode.engine.events import Named, plain
from trimode.engine.request import Request
from trimode.spans import KINDS, FinishReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """An answer with its cost. `token_ids` include an ending EOS, `text` does not; forwards are counted by kind."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    stop_reason: str | int | None  # the stop string, or the token other than the checkpoint's own, that ended the text
    mode: str
    placement: str | None
    prompt_tokens: int
    cached_tokens: int  # of the prompt, whose keys and values were known
    completion_tokens: int
    forwards: dict[str, int]  # by kind, and their `total`
    tokens_per_forward: float
    acceptance_length: float | None  # tokens per verify forward, bonus included; None where nothing was verified
    acceptance: tuple[tuple[int, int, int], ...] | None  # by place in a verify forward: verified, reached, accepted
    seconds: float
    logprobs: tuple[Named, ...] | None  # of each token of the answer, where they were asked for
    prompt_logprobs: tuple[Named | None, ...] | None  # of each token of the prompt; None stands for the first

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        told: dict[str, Any] = plain(asdict(self))
        return told


def completion(request: Request) -> Completion:
    """What a request has come to; a request not yet at its end counts as cancelled."""
    counts, answer, witness = request.counts, request.answer, request.witness
    total = counts.forwards.total()
    verified = counts.forwards["verify"]
    return Completion(
        text=request.text.sent if request.text else "",
        token_ids=answer,
        finish_reason=request.finish or "cancelled",
        stop_reason=request.stop_reason,
        mode=request.decoder.mode,
        placement=getattr(request.decoder, "placement", None),
        prompt_tokens=request.n_prompt,
        cached_tokens=request.n_cached or 0,
        completion_tokens=len(answer),
        forwards={kind: counts.forwards[kind] for kind in KINDS if counts.forwards[kind]} | {"total": total},
        tokens_per_forward=len(answer) / total if total else 0.0,
        acceptance_length=counts.tokens["verify"] / verified if verified else None,
        acceptance=tuple(
            (n, counts.reached[place], counts.accepted[place]) for place, n in sorted(counts.verified.items())
        )
        or None,
        seconds=request.seconds,
        logprobs=None if witness is None or witness.n_best is None else tuple(witness.answer),
        prompt_logprobs=None if witness is None or witness.n_prompt_best is None else (None, *witness.prompt),
    )
