"""Self-speculation: canvases draft what follows, causal rows verify the drafts, and the text is that of `ar`.

One decoder, four placements. A forward commits the anchor (the last token chosen) and guesses for what follows it. Each
of these rows is causal and names the true next token, so the guesses that agree stay, and the first row that disagrees
brings the right token along. Canvases in the same forward, each after some of the guesses, draft the next round for the
case that just those guesses hold:

    placement   canvases beside n guesses                forwards per round
    linear      none; without guesses, one               2
    chained     after all n                              1 if all hold, else 2
    pruned      after the likeliest few lengths          1 if the true length is among them, else 2
    quadratic   after every length, 0 to n               1

Slot 0 of a canvas stands where the row before it knows better; it is a mask that is not read. How much of a draft is
verified, how long drafts are, and when plain steps take over follows from confidences, recent acceptance and a cost
model, never from a clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from trimode.cost import FLAT, CostModel
from trimode.decoding.base import Step, check_options, first_part, option
from trimode.decoding.lookup import lookup
from trimode.decoding.placement import best_length, can_pay, joint_above, likeliest, worth_placing, worth_verifying
from trimode.decoding.rounds import Record
from trimode.errors import InvalidInput
from trimode.numerics.acceptance import accepted_length
from trimode.numerics.unmasking import above_threshold
from trimode.spans import Canvas, CanvasView, Kind, Picks, Rows, Span

PLACEMENTS = ("linear", "chained", "pruned", "quadratic")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeculationState:
    length: int  # final tokens
    end: int  # tokens the text may grow to
    started: bool = False
    draft: tuple[int, ...] = ()  # guesses for what follows the last final token; masks where another look is needed
    confidence: tuple[float, ...] = ()  # of each guess
    record: Record = field(default_factory=Record)


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfSpeculation:
    """Draft by diffusion, verify causally with the same weights (arXiv 2607.05722, sections 3.3 and 3.4)."""

    mode: ClassVar[str] = "self_speculation"

    mask_token_id: int
    canvas_logits: str = "own"
    cost: CostModel = FLAT
    placement: str = option("pruned", "where drafting canvases stand", choices=PLACEMENTS)
    block_size: int = option(32, "longest draft unless draft_length says otherwise", low=1, high=1024)
    draft_length: int | None = option(
        None, "tokens of a draft, anchor included (default: by recent acceptance, at most block_size)", low=1, high=1024
    )
    max_canvases: int = option(2, "canvases beside the guesses in placement pruned", low=1)
    draft_threshold: float = option(0.0, "look again at guesses less probable than this; 0: one look", low=0.0)
    verify_above: float | None = option(
        None,
        "verify guesses while they hold together with at least this probability (default: by cost)",
        low=0.0,
        high=1.0,
    )
    anchor: str = option(
        "committed", "the anchor of a draft: committed with it, or inside its canvas", choices=("committed", "canvas")
    )
    lookup_length: int = option(8, "guesses looked up in the text where no canvas has made any; 0: off", low=0)
    fallback_below: float | None = option(
        None, "tokens per round under which plain steps take over; 0: never (default: by cost)", low=0.0, high=1024.0
    )

    def __post_init__(self) -> None:
        check_options(self)
        if self.anchor == "canvas" and self.placement != "linear":
            raise InvalidInput(f"anchor is 'canvas', allowed with placement linear alone, not {self.placement!r}")

    def start(self, tokens: Sequence[int], end: int) -> SpeculationState:
        return SpeculationState(length=len(tokens), end=end)

    def plan(self, state: SpeculationState, tokens: Sequence[int], cache_len: int, budget_rows: int) -> Span:
        if self.mask_token_id in state.draft:
            return self._look(state, tokens[-1], budget_rows)
        part = first_part(tokens, cache_len, budget_rows, "prefill")
        if part:
            return part
        pending = tuple(tokens[cache_len:])
        left = budget_rows - len(pending)
        guesses = self._guesses(state, tokens)[:left] if left > 0 else ()
        canvases = self._canvases(state, guesses, len(pending), left - len(guesses))
        kind: Kind = "verify" if guesses else "draft" if canvases else "decode"
        commit = pending + guesses
        read = tuple(range(len(pending) - 1, len(commit)))
        return Span(commit=commit, canvases=canvases, read=read, kind=kind if state.started else "prefill")

    def advance(self, state: SpeculationState, span: Span, picks: Picks) -> Step[SpeculationState]:
        if not span.commit:
            return Step(state=self._looked(state, span, picks.canvases[0]), tokens=(), keep=state.length - 1)
        if state.record.plain > 1 and span.kind == "decode":  # within a break: nothing to judge
            after = replace(state, length=state.length + 1, record=state.record.after_forward(1, 0.0))
            return Step(state=after, tokens=(int(picks.commit.token_S[0]),), keep=state.length)
        n = span.n_guesses
        n_sure = len(span.commit) - n
        chosen: list[int] = picks.commit.token_S.tolist()
        accepted = accepted_length(span.commit[n_sure:], chosen)
        tokens = tuple(chosen[: accepted + 1])
        after = replace(
            state, length=state.length + len(tokens), started=True, draft=(), confidence=(),
            record=self._record(state, span, n, tokens),
        )  # fmt: skip
        canvases = zip(span.canvases, picks.canvases, strict=True)
        hit = next((rows for canvas, rows in canvases if canvas.after == n_sure + accepted), None)
        if hit is not None:
            after = self._filled(self._rounded(after) if state.draft else after, (), hit)
        elif accepted == n < len(state.draft) and tokens[-1] == state.draft[n]:  # what was not verified still stands
            after = replace(after, draft=state.draft[n + 1 :], confidence=state.confidence[n + 1 :])
        if not after.draft:
            after = self._opened(self._rounded(after))
        return Step(state=after, tokens=tokens, keep=state.length + accepted)

    def view(self, state: SpeculationState) -> CanvasView | None:
        return CanvasView(tokens=state.draft, unsure=frozenset(range(len(state.draft)))) if state.draft else None

    def _guesses(self, state: SpeculationState, tokens: Sequence[int]) -> tuple[int, ...]:
        """What of the draft, or else of the text, is worth verifying. The last token is always the verifier's own."""
        room = state.end - state.length - 1
        draft = state.draft[:room]
        if not draft and self.lookup_length and state.started:
            draft = lookup(tokens, min(self.lookup_length, room))
        confidence = self._confidence(state, len(draft))
        if self.verify_above is not None:
            return draft[: joint_above(confidence, self.verify_above)]
        width = 0 if state.record.plain else self._length(state)  # no draft follows within a break
        return draft[: worth_verifying(confidence, self.cost, width)]

    def _confidence(self, state: SpeculationState, n: int) -> tuple[float, ...]:
        """Of the first n guesses; those looked up have that of their kind."""
        return state.confidence[:n] if state.draft else (state.record.found.value,) * n

    def _canvases(
        self, state: SpeculationState, guesses: tuple[int, ...], n_pending: int, left: int
    ) -> tuple[Canvas, ...]:
        """Canvases for the next round, as many as `left` rows hold."""
        canvases = []
        for accepted in self._lengths(state, guesses):
            width = min(self._length(state), state.end - state.length - accepted - 1, left)
            if width >= 2:
                masks, slots = (self.mask_token_id,) * width, tuple(range(1, width))
                canvases.append(self._canvas(n_pending + accepted, masks, slots))
                left -= width
        return tuple(canvases)

    def _lengths(self, state: SpeculationState, guesses: tuple[int, ...]) -> Sequence[int]:
        """Acceptance lengths to prepare the next round for, the most useful first."""
        n = len(guesses)
        if state.record.plain or self.anchor == "canvas" or (state.draft and not guesses) or not self._may_pay:
            return ()
        if self.placement == "quadratic" and guesses:
            return likeliest(self._confidence(state, n), n + 1)
        if not state.draft:  # what was looked up often fails at once; where it holds, looking up again beats a canvas
            return (0,)
        if self.placement == "linear":
            return ()
        confidence = self._confidence(state, n)
        lengths = [n] if self.placement == "chained" else likeliest(confidence, self.max_canvases)
        return worth_placing(lengths, confidence, self.cost, self._length(state))

    @property
    def _may_pay(self) -> bool:
        """Whether the best draft could; where plain steps do not take over by cost, all are welcome."""
        return self.fallback_below is not None or can_pay(self.cost, self.draft_length or self.block_size)

    def _length(self, state: SpeculationState) -> int:
        """Slots of a canvas: the anchor's and one per guess."""
        return self.draft_length or best_length(round(state.record.drafted.value, 2), self.cost, self.block_size)

    def _look(self, state: SpeculationState, anchor: int, budget_rows: int) -> Span:
        """Another look at a draft that still holds masks, the anchor inside its canvas."""
        tokens = (anchor, *state.draft)
        tokens = tokens[: max(budget_rows, tokens.index(self.mask_token_id) + 1)]
        masked = tuple(slot for slot, token in enumerate(tokens) if token == self.mask_token_id)
        return Span(commit=(), canvases=(self._canvas(0, tokens, masked),), kind="draft")

    def _canvas(self, after: int, tokens: tuple[int, ...], read: tuple[int, ...]) -> Canvas:
        return Canvas(after=after, tokens=tokens, read=read, draft=True, shifted=self.canvas_logits == "shifted")

    def _looked(self, state: SpeculationState, span: Span, rows: Rows) -> SpeculationState:
        draft = span.canvases[0].tokens[1:]
        record = state.record.after_forward(0, self.cost(0, len(draft) + 1))
        return self._filled(replace(state, record=record), draft, rows)

    def _filled(self, state: SpeculationState, draft: tuple[int, ...], rows: Rows) -> SpeculationState:
        """With the masks of the draft filled where a guess is probable enough, and one in any case."""
        tokens = list(draft) or [self.mask_token_id] * len(rows.token_S)
        sure = list(state.confidence[: len(draft)]) or [0.0] * len(tokens)
        masked = [slot for slot, token in enumerate(tokens) if token == self.mask_token_id]
        guessed: list[float] = rows.confidence_S.tolist()
        for index in above_threshold(guessed, self.draft_threshold):
            tokens[masked[index]], sure[masked[index]] = int(rows.token_S[index]), guessed[index]
        return replace(state, draft=tuple(tokens), confidence=tuple(sure))

    def _opened(self, state: SpeculationState) -> SpeculationState:
        """With the anchor inside the canvas, a round begins with masks only."""
        width = min(self._length(state), state.end - state.length)
        if self.anchor != "canvas" or state.record.plain or width < 2:
            return state
        return replace(state, draft=(self.mask_token_id,) * (width - 1), confidence=(0.0,) * (width - 1))

    def _record(self, state: SpeculationState, span: Span, n: int, tokens: tuple[int, ...]) -> Record:
        """The record after n guesses were verified and `tokens` came of it."""
        if not state.started:
            return state.record
        draft_rows = span.n_rows - len(span.commit)
        record = state.record.after_forward(len(tokens), self.cost(len(span.commit), draft_rows))
        guesses = state.draft or span.commit[len(span.commit) - n :]
        judged = min(len(tokens), len(guesses))
        held = accepted_length(guesses[:judged], tokens)
        if state.draft:
            return replace(record, drafted=record.drafted.after(held, judged))
        return replace(record, found=record.found.after(held, judged))

    def _rounded(self, state: SpeculationState) -> SpeculationState:
        """With the round closed, if one is open."""
        return replace(state, record=state.record.after_round(self.cost, self.fallback_below))
