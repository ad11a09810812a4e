"""One prompt on its way to an answer: it owns all emitted tokens. Knows what ends a text, not how tokens come about."""

import time
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from trimode.cache import Cache, Pool
from trimode.decoding import Decoder
from trimode.engine.detokenizer import Detokenizer
from trimode.engine.witness import Witness
from trimode.models.adapters import Adapter
from trimode.numerics.sampling import Sampling
from trimode.spans import FinishReason, Kind, Span

SCORED_AT_ONCE = 256  # rows whose logits over the whole vocabulary are there at the same time


@dataclass(slots=True)
class Counts:
    """What a request has cost. `forwards` were read; `prefill_parts` were not.

    These are the earlier chunks of a long prompt, and what was computed anew after a preemption.
    """

    forwards: Counter[Kind] = field(default_factory=Counter)
    tokens: Counter[Kind] = field(default_factory=Counter)  # emitted by forwards of a kind
    prefill_parts: int = 0
    verified: Counter[int] = field(default_factory=Counter)  # guesses, by their place in a verify forward, from 0
    reached: Counter[int] = field(default_factory=Counter)  # those of them before which all held
    accepted: Counter[int] = field(default_factory=Counter)  # those of these that held themselves

    def add_part(self, kind: Kind) -> None:
        """Count a forward that committed without being read: apart for a prompt, with the others later. Mutates."""
        if kind == "prefill":
            self.prefill_parts += 1
        else:
            self.forwards[kind] += 1

    def add_guesses(self, n_guesses: int, n_made: int) -> None:
        """Count the guesses of a forward that made n_made tokens: all but the last are guesses that held. Mutates."""
        self.verified.update(range(n_guesses))
        self.reached.update(range(min(n_guesses, n_made)))
        self.accepted.update(range(min(n_guesses, n_made - 1)))


@dataclass(slots=True, eq=False)
class Request:
    """Prompt, answer so far, decoder with its state, cache, and the counts."""

    id: int
    tokens: list[int]
    n_prompt: int
    end: int  # tokens the text may grow to
    decoder: Decoder[Any]
    state: Any
    sampling: Sampling
    ends: tuple[int, ...]  # tokens that end the text
    usual_ends: tuple[int, ...]  # the checkpoint's own
    cache: Cache[Pool]
    text: Detokenizer | None
    commit_block: int = 1  # tokens are committed in whole blocks of so many
    is_watched: bool = False
    witness: Witness | None = None  # of a request that is watched, or asks how probable tokens are
    adapter: Adapter | None = None  # for all rows of its forwards
    salt: str = ""  # texts of another salt share no page with this one
    nodes: list[Hashable] = field(default_factory=list)  # behind each of its pages that is known
    n_cached: int | None = None  # tokens of the prompt that were there when it first ran
    n_recomputed: int = 0  # positions a preemption took from the cache, to be filled before the decoder goes on
    counts: Counts = field(default_factory=Counts)
    finish: FinishReason | None = None
    started_at: float = field(default_factory=time.perf_counter)
    seconds: float = 0.0

    @property
    def answer(self) -> tuple[int, ...]:
        """Emitted tokens, an ending EOS included."""
        return tuple(self.tokens[self.n_prompt :])

    @property
    def root(self) -> Hashable:
        """What the keys and values of its first page depend on beside its tokens."""
        return self.adapter, self.salt

    @property
    def is_scored(self) -> bool:
        """Whether rows of the prompt are wanted, which must then be computed."""
        return self.witness is not None and self.witness.is_reading(0)

    @property
    def stop_reason(self) -> str | int | None:
        """What ended a text that has stopped: a stop string, or a token that is not the checkpoint's own end."""
        if self.finish != "stop":
            return None
        if self.text is not None and self.text.is_stopped:
            return self.text.stopped_by
        return None if self.tokens[-1] in self.usual_ends else self.tokens[-1]

    def weigh(self, load: int) -> None:
        """Tell a decoder that weighs it how many requests share a forward. Mutates."""
        if (weighed := getattr(self.decoder, "weighed", None)) is not None:
            self.decoder = weighed(load)

    def plan(self, max_rows: int) -> Span:
        """What the decoder plans, or a part of what a preemption took from under it, which reads nothing."""
        cached = self.cache.length
        if self.witness and self.witness.is_reading(cached):
            max_rows = min(max_rows, SCORED_AT_ONCE)
        if cached < self.n_recomputed:
            n_blocks = max(max_rows // self.commit_block, 1)
            stop = min(cached + n_blocks * self.commit_block, self.n_recomputed)
            return Span(commit=tuple(self.tokens[cached:stop]), kind="prefill", block=self.commit_block)
        return self.decoder.plan(self.state, self.tokens, cached, max_rows)

    def take(self, tokens: tuple[int, ...], kind: Kind) -> tuple[int, ...]:
        """Append final tokens up to the first that ends the text; a burst's surplus is dropped. Mutates."""
        taken = 0
        for token in tokens:
            self.tokens.append(token)
            taken += 1
            if token in self.ends or (self.text is not None and self.text.add(token)):
                self.finish = "stop"
            elif len(self.tokens) >= self.end:
                self.finish = "length"
            if self.finish:
                break
        self.counts.tokens[kind] += taken
        return tokens[:taken]
