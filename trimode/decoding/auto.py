"""Self-speculation or plain steps, as pays for as many requests as share a forward. The text is that of `ar`.

While a forward is bound by reading the weights, rows beside the first cost little, and drafts are worth theirs. The
more requests share it, the more of its time is theirs, and the less a row may be wrong. So drafts are weighed with a
request's share of the cost, `CostModel.shared`, which the engine's load changes from forward to forward; where no draft
is worth its rows, what is left are the steps of `ar`. Checkpoints without a mask token have nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

from trimode.cost import FLAT, CostModel
from trimode.decoding.autoregressive import Autoregressive
from trimode.decoding.base import Decoder, Step
from trimode.decoding.self_speculation import SelfSpeculation
from trimode.spans import CanvasView, Picks, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Auto:
    """Plain steps or drafts, as the model of costs weighs them at this load. Has no knobs."""

    mode: ClassVar[str] = "auto"

    mask_token_id: int | None = None
    canvas_logits: str = "own"
    cost: CostModel = FLAT
    block_size: int = 32
    load: int = 1  # requests that share a forward

    def weighed(self, load: int) -> "Auto":
        """The same for another load. A state goes on as it is."""
        return self if load == self.load else replace(self, load=load)

    def start(self, tokens: Sequence[int], end: int) -> Any:
        return writer(self).start(tokens, end)

    def plan(self, state: Any, tokens: Sequence[int], cache_len: int, budget_rows: int) -> Span:
        return writer(self).plan(state, tokens, cache_len, budget_rows)

    def advance(self, state: Any, span: Span, picks: Picks) -> Step[Any]:
        return writer(self).advance(state, span, picks)

    def view(self, state: Any) -> CanvasView | None:
        return writer(self).view(state)


@lru_cache(maxsize=256)
def writer(auto: Auto) -> Decoder[Any]:
    """What writes at this load."""
    if auto.mask_token_id is None:
        return Autoregressive()
    return SelfSpeculation(
        mask_token_id=auto.mask_token_id, canvas_logits=auto.canvas_logits, block_size=auto.block_size,
        cost=auto.cost.shared(auto.load),
    )  # fmt: skip
