"""Prompt lookup: guesses from the text itself, verified causally, so the text is that of `ar`. Needs no mask token.

A forward commits the last token and guesses for what follows it: what came after the latest earlier place where the
text's last 4, 3 or 2 tokens stood (lookup.py). Each of these rows names the true next token, so the guesses that agree
stay, and the first row that disagrees brings the right token along. No canvas, no draft, nothing remembered.

    forward                         kind      makes
    the prompt                      prefill   1 token
    nothing stood there before      decode    1 token
    n guesses                       verify    1 to n + 1 tokens

So it never needs more forwards than `ar`. Nor does it weigh what a row costs: `lookup_length` guesses are verified
wherever some are found, and where rows are not free, as on a CPU, those that miss cost time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from trimode.decoding.base import Step, check_options, first_part, option
from trimode.decoding.lookup import lookup
from trimode.numerics.acceptance import accepted_length
from trimode.spans import CanvasView, Kind, Picks, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupState:
    length: int  # final tokens
    end: int  # tokens the text may grow to
    started: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptLookup:
    """Prompt-lookup decoding (Saxena 2023): what `self_speculation` is to be compared with."""

    mode: ClassVar[str] = "prompt_lookup"

    lookup_length: int = option(10, "guesses looked up in the text for each forward", low=1)

    def __post_init__(self) -> None:
        check_options(self)

    def start(self, tokens: Sequence[int], end: int) -> LookupState:
        return LookupState(length=len(tokens), end=end)

    def plan(self, state: LookupState, tokens: Sequence[int], cache_len: int, budget_rows: int) -> Span:
        part = first_part(tokens, cache_len, budget_rows, "prefill")
        if part:
            return part
        pending = tuple(tokens[cache_len:])
        room = min(state.end - state.length - 1, budget_rows - len(pending))  # the last token is the verifier's own
        guesses = lookup(tokens, min(self.lookup_length, room)) if state.started and room > 0 else ()
        kind: Kind = "verify" if guesses else "decode"
        commit = pending + guesses
        read = tuple(range(len(pending) - 1, len(commit)))
        return Span(commit=commit, read=read, kind=kind if state.started else "prefill")

    def advance(self, state: LookupState, span: Span, picks: Picks) -> Step[LookupState]:
        chosen: list[int] = picks.commit.token_S.tolist()
        guesses = span.commit[len(span.commit) - span.n_guesses :]
        accepted = accepted_length(guesses, chosen)
        after = LookupState(length=state.length + accepted + 1, end=state.end, started=True)
        return Step(state=after, tokens=tuple(chosen[: accepted + 1]), keep=state.length + accepted)

    def view(self, state: LookupState) -> CanvasView | None:
        return None
