"""Block diffusion: a canvas of masks after the text is looked at several times, and each look fills confident slots.

    anchor    slot 0 of a block is                           the first look
    fused     read from the last committed row               rides with the commit of the block before
    canvas    the same, but filled before the first look     follows it, as in the released models' own decoder
    none      a mask like the others                         rides with the commit of the block before

In a checkpoint with shifted canvas logits the row of slot j names slot j + 1: slot 0 is always read from the commit.
Which slots a look fills is a rule (numerics/unmasking.py). A filled slot stays, unless `remask` lets it be doubted: it
is then read again at every look and may be emptied once. With `ar_weight`, every slot is also read causally in the same
forward, from the text and the canvas up to the slot before it, and chosen by both.
A block is final when its slots are filled, or those up to its first EOS.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from trimode.decoding.autoregressive import next_token
from trimode.decoding.base import Step, check_options, first_part, option
from trimode.errors import InvalidInput
from trimode.numerics.unmasking import REMASKS, RULES, Filled, Look, slots_to_fill
from trimode.spans import Canvas, CanvasView, Kind, Picks, Rows, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionState:
    length: int  # final tokens
    end: int  # tokens the text may grow to
    kind: Kind = "prefill"  # of the next forward that commits
    block: tuple[int, ...] = ()  # the open canvas; empty until something is known of it
    looks: int = 0  # at this canvas so far
    doubted: frozenset[int] = frozenset()  # slots of it that have been emptied again


@dataclass(frozen=True, slots=True, kw_only=True)
class Diffusion:
    """Denoise block after block by confidence (arXiv 2607.05722, section 2; Fast-dLLM, arXiv 2505.22618)."""

    mode: ClassVar[str] = "diffusion"

    mask_token_id: int
    eos_token_ids: tuple[int, ...]
    canvas_logits: str = "own"
    block_size: int = option(32, "slots of a canvas (default: the checkpoint's)", low=1, high=1024)
    anchor: str = option("fused", "where slot 0 of a block comes from", choices=("fused", "canvas", "none"))
    rule: str = option("threshold", "how a look chooses the slots it fills", choices=tuple(RULES), live=True)
    confidence_threshold: float | None = option(
        0.9,
        "fill slots at least this probable; above 1: one slot per look; none: an even quota per look",
        low=0.0,
        optional=True,
        live=True,
    )
    max_denoising_steps: int | None = option(None, "looks at one block (default: block_size)", low=1, live=True)
    slots_per_look: int = option(1, "rule top_k: slots a look fills", low=1, live=True)
    factor: float = option(1.0, "rules factor and bound: larger fills more slots per look", low=0.0, live=True)
    remask: str = option("none", "which filled slots are emptied again", choices=tuple(REMASKS), live=True)
    remask_below: float = option(0.5, "remask: the probability a filled slot must keep", low=0.0, high=1.0, live=True)
    ar_weight: float = option(0.0, "share of the causal rows in the choice of every slot", low=0.0, high=1.0)

    def __post_init__(self) -> None:
        check_options(self)
        if self.anchor == "none" and self.canvas_logits == "shifted":
            raise InvalidInput("anchor is 'none', but no canvas row of this checkpoint names slot 0")

    def start(self, tokens: Sequence[int], end: int) -> DiffusionState:
        return DiffusionState(length=len(tokens), end=end)

    def plan(self, state: DiffusionState, tokens: Sequence[int], cache_len: int, budget_rows: int) -> Span:
        commit = tuple(tokens[cache_len:])
        if state.block:
            slots = sorted(self._open(state.block) + self._doubtful(state))
            return self._look(commit, state.block, slots, state.looks, "denoise")
        width = self._width(state)
        rides = self.anchor == "none" or (self.anchor == "fused" and width > 1)
        rows = (width + (width - 1) * (self.ar_weight > 0)) if rides else 0
        part = first_part(tokens, cache_len, budget_rows, state.kind, rows)
        if part or not rides:
            return part or next_token(tokens, cache_len, state.kind)
        first = 1 if self.anchor == "fused" else 0
        span = self._look(commit, (self.mask_token_id,) * width, range(first, width), 0, state.kind)
        return replace(span, read=(len(commit) - 1,) * first)

    def advance(self, state: DiffusionState, span: Span, picks: Picks) -> Step[DiffusionState]:
        block = list(state.block) or [self.mask_token_id] * self._width(state)
        looks, n_known = state.looks, len(span.read)
        doubted: list[int] = []
        if span.canvases:
            looks += 1
            write, doubted = self._revise(state, block, span.canvases[0].read, picks.canvases[0], n_known)
            for slot, token in write.items():
                block[slot] = token
        if n_known:
            block[0] = int(picks.commit.token_S[0])
        after = replace(state, block=tuple(block), looks=looks, kind="commit", doubted=state.doubted.union(doubted))
        return self._step(after)

    def view(self, state: DiffusionState) -> CanvasView | None:
        return CanvasView(tokens=state.block, unsure=frozenset(self._doubtful(state))) if state.block else None

    def _width(self, state: DiffusionState) -> int:
        return min(self.block_size, state.end - state.length)

    def _look(
        self, commit: tuple[int, ...], block: tuple[int, ...], slots: Sequence[int], looks: int, kind: Kind
    ) -> Span:
        """A look at these slots; with `ar_weight`, the block is fed causally as well, and cut from the cache again.

        Where slots can be doubted, all looks share their noise, so that a second reading differs for a reason.
        """
        canvas = Canvas(
            after=len(commit), tokens=block, read=tuple(slots), round=looks if self.remask == "none" else 0,
            score=RULES[self.rule].score, mix=self.ar_weight, shifted=self.canvas_logits == "shifted",
        )  # fmt: skip
        provisional = block[:-1] if self.ar_weight else ()
        return Span(commit=commit + provisional, canvases=(canvas,), kind=kind)

    def _open(self, block: Sequence[int]) -> list[int]:
        """Masked slots to fill. Those after an EOS do not matter; the model card's decoder fills them all the same."""
        stop = len(block) if self.anchor == "canvas" else self._first_eos(block)
        return [slot for slot in range(stop) if block[slot] == self.mask_token_id]

    def _doubtful(self, state: DiffusionState) -> list[int]:
        """Filled slots that may still be emptied: each once, never the anchor, none where the last look comes."""
        if self.remask == "none" or self._looks_left(state) <= 1:
            return []
        stop = min(self._first_eos(state.block) + 1, len(state.block))
        slots = range(0 if self.anchor == "none" else 1, stop)
        return [s for s in slots if state.block[s] != self.mask_token_id and s not in state.doubted]

    def _first_eos(self, block: Sequence[int]) -> int:
        return next((slot for slot, token in enumerate(block) if token in self.eos_token_ids), len(block))

    def _looks_left(self, state: DiffusionState) -> int:
        return max((self.max_denoising_steps or self.block_size) - state.looks, 1)

    def _revise(
        self, state: DiffusionState, block: Sequence[int], slots: Sequence[int], rows: Rows, n_known: int
    ) -> tuple[dict[int, int], list[int]]:
        """What to write where, the mask included, and the slots emptied by it; `n_known` slots came from the commit."""
        masked = [i for i, slot in enumerate(slots) if block[slot] == self.mask_token_id]
        filled = [i for i, slot in enumerate(slots) if block[slot] != self.mask_token_id]
        look = Look(
            left=self._looks_left(state), threshold=self.confidence_threshold, n_slots=self.slots_per_look,
            factor=self.factor,
        )  # fmt: skip
        chosen = slots_to_fill(RULES[self.rule], [float(rows.score_S[i]) for i in masked], look, n_known)
        again = [
            Filled(token=block[slots[i]], now=int(rows.token_S[i]), confidence=float(rows.confidence_S[i]))
            for i in filled
        ]
        doubted = [slots[filled[i]] for i in REMASKS[self.remask](again, self.remask_below)] if again else []
        write = {slots[masked[i]]: int(rows.token_S[masked[i]]) for i in chosen}
        return write | dict.fromkeys(doubted, self.mask_token_id), doubted

    def _step(self, state: DiffusionState) -> Step[DiffusionState]:
        """Close the block if all is filled up to its first EOS. To read causally, the last token is fed again."""
        stop, keep = self._first_eos(state.block), state.length - (self.ar_weight > 0)
        if self.mask_token_id in state.block[:stop]:
            return Step(state=state, tokens=(), keep=keep)
        tokens = state.block[: stop + 1]
        fresh = DiffusionState(length=state.length + len(tokens), end=state.end, kind="commit")
        return Step(state=fresh, tokens=tokens, keep=keep)
