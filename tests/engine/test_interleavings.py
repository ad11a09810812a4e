"""Any interleaving of arrivals, steps, aborts, changes and preemptions gives every request the tokens it has alone."""

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes import VARIANTS, Watched, alone, decoder, lively_model, written
from trimode.engine.engine import Engine
from trimode.engine.request import Request
from trimode.engine.runner import Job, run
from trimode.numerics.sampling import Sampling
from trimode.spans import Span

pytestmark = pytest.mark.medium

ENDS = (2, 18, 35)
MODEL = lively_model(1, eos_token_ids=ENDS)
LOSSLESS = [variant for variant, (mode, _) in VARIANTS.items() if mode != "diffusion"]
PROMPTS = ((5,), (7, 8, 9), tuple(range(4, 21)), (1, *range(40, 60), 9, 9))
DIGITS = 3e-5  # by which keys and values may differ when a prompt comes in other portions


@cache
def by_itself(variant: str, prompt: tuple[int, ...], max_tokens: int, sampling: Sampling) -> tuple[Any, ...]:
    request = alone(MODEL, variant, prompt, max_tokens=max_tokens, sampling=sampling)
    return request.answer, request.finish


@dataclass(eq=False)
class Followed:
    """A request with what its answer must be: `ar`'s while every mode promised that, else the last decoder's own."""

    request: Request
    prompt: tuple[int, ...]
    max_tokens: int
    sampling: Sampling
    variants: list[str]
    prefix: tuple[int, ...] = ()  # the answer at the last change
    seen: list[int] = field(default_factory=list)  # tokens its events brought

    @property
    def work(self) -> int:
        return self.request.counts.forwards.total() + self.request.counts.prefill_parts

    def check_answer(self) -> None:
        """A change starts anew from the text so far; among modes that promise `ar`'s text it changes nothing."""
        answer = self.request.answer
        if set(self.variants) <= set(LOSSLESS):
            expected = by_itself("ar", self.prompt, self.max_tokens, self.sampling)
        else:
            left = self.max_tokens - len(self.prefix)
            rest, finish = by_itself(self.variants[-1], (*self.prompt, *self.prefix), left, self.sampling)
            expected = ((*self.prefix, *rest), finish)
        if self.request.finish == "cancelled":
            assert answer == expected[0][: len(answer)]
        else:
            assert (answer, self.request.finish) == expected


@dataclass(frozen=True)
class Order:
    """What happens after `wait` steps, and to whom."""

    kind: str
    wait: int
    which: int
    variant: str
    prompt: tuple[int, ...]
    max_tokens: int
    sampling: Sampling


ORDERS = st.builds(
    Order, kind=st.sampled_from(("submit", "submit", "change", "change", "vary", "preempt", "abort", "look")),
    wait=st.sampled_from((1, 2, 4, 8, 0)), which=st.integers(0, 63), variant=st.sampled_from(list(VARIANTS)),
    prompt=st.sampled_from(PROMPTS), max_tokens=st.sampled_from((24, 12, 5, 2, 1)),
    sampling=st.builds(Sampling, temperature=st.sampled_from((0.0, 1.0)), seed=st.integers(0, 2)),
)  # fmt: skip


class World:
    """An engine, everybody who ever came, and what must hold after every order."""

    def __init__(self, max_rows: int, max_running: int, max_cached: int | None) -> None:
        self.spans: list[int] = []  # of every forward
        model = Watched(MODEL, lambda _, visibility: self.spans.append(len(visibility.layouts)))
        self.engine = Engine(model, max_rows=max_rows, max_running=max_running, max_cached=max_cached)
        self.all: list[Followed] = []

    @property
    def going(self) -> list[Followed]:
        return [each for each in self.all if each.request.finish is None]

    def obey(self, order: Order) -> None:
        for _ in range(order.wait):
            self.step()
        if order.kind == "submit":
            self.submit(order)
            return
        kept = [each for each in self.going if order.kind != "vary" or set(each.variants) <= set(LOSSLESS)]
        running = [each for each in kept if each.request in self.engine.queue.running]
        pool = running if running and order.which % 2 else kept  # nothing happens much to those who wait
        if pool:
            self.happen(order, pool[order.which // 2 % len(pool)])

    def submit(self, order: Order) -> None:
        chosen, sampling = decoder(order.variant, MODEL.config), order.sampling
        request = self.engine.submit(order.prompt, chosen, max_tokens=order.max_tokens, sampling=sampling)
        self.all.append(Followed(request, order.prompt, order.max_tokens, sampling, [order.variant]))

    def happen(self, order: Order, each: Followed) -> None:
        if order.kind == "abort":
            self.engine.abort(each.request)
        elif order.kind == "preempt":
            self.engine.preempt(each.request)
        elif order.kind == "look":
            self.check_cache(each.request)
        else:
            variant = LOSSLESS[order.which % len(LOSSLESS)] if order.kind == "vary" else order.variant
            self.engine.change(each.request, decoder(variant, MODEL.config))
            each.variants.append(variant)
            each.prefix = each.request.answer

    def step(self) -> None:
        """One forward if anybody is there; every span in it moves its request on."""
        before, n_forwards, was_idle = sum(each.work for each in self.all), len(self.spans), self.engine.is_idle
        events = self.engine.step()
        assert len(self.spans) - n_forwards == (not was_idle)
        assert sum(each.work for each in self.all) - before == sum(self.spans[n_forwards:])
        for event in events:
            next(each for each in self.all if each.request.id == event.request).seen.extend(event.tokens)

    def check_cache(self, request: Request) -> None:
        """What is committed in it is what a plain prefill of the text writes."""
        n = request.cache.length
        fresh = MODEL.new_cache(len(request.tokens))
        run(MODEL, [Job(span=Span(commit=tuple(request.tokens), kind="prefill"), cache=fresh, sampling=Sampling())])
        torch.testing.assert_close(written(request.cache, n), written(fresh, n), atol=DIGITS, rtol=1e-4)

    def positions_are_conserved(self) -> None:
        """Who runs has cached its text up to the last token or block; who waits or has ended holds no memory."""
        for each in self.all:
            request, cache = each.request, each.request.cache
            is_running = request in self.engine.queue.running
            assert is_running + (request in self.engine.queue.waiting) == (request.finish is None)
            if not is_running:
                assert (cache.length, cache.capacity) == (0, 0)
            uncached = len(request.tokens) - cache.length
            if is_running and cache.length and not request.counts.prefill_parts and len(each.variants) == 1:
                is_block = request.decoder.mode == "diffusion"  # whose last token may be fed again with the next block
                assert 0 <= uncached <= request.decoder.block_size + 1 if is_block else uncached == 1

    def memory_is_kept_within_its_limit(self) -> None:
        if self.engine.max_cached is not None and len(self.engine.queue.running) > 1:
            assert sum(request.cache.length for request in self.engine.queue.running) <= self.engine.max_cached

    def counts_sum_up_and_nothing_follows_an_end(self) -> None:
        for each in self.all:
            request = each.request
            assert request.counts.tokens.total() == len(request.answer) <= each.max_tokens
            assert tuple(each.seen) == request.answer
            assert not set(request.answer[:-1]) & set(ENDS)
            if request.finish is not None:
                assert (request.finish == "stop") == bool(set(request.answer[-1:]) & set(ENDS))
                each.check_answer()
        assert sum(each.work for each in self.all) == sum(self.spans)

    def check(self) -> None:
        self.positions_are_conserved()
        self.memory_is_kept_within_its_limit()
        self.counts_sum_up_and_nothing_follows_an_end()

    def drain(self) -> None:
        """Left alone, everybody comes to an end, in a number of forwards that follows from the lengths."""
        looks = 9  # forwards that make a token, at most: as many looks as a draft has slots, and a verification
        bound = len(self.going) * sum(  # where memory is short, every turn of the oldest may undo one of the others
            looks * (each.request.end - len(each.request.tokens)) + 2 * each.request.end + 1 for each in self.going
        )
        while not self.engine.is_idle:
            self.step()
            bound -= 1
            assert bound >= 0


@pytest.mark.medium
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    max_rows=st.sampled_from((2048, 2048, 20, 8, 3, 1)),
    max_running=st.sampled_from((64, 5, 2, 1)),
    max_cached=st.sampled_from((None, None, 100, 40, 1)),
    orders=st.lists(ORDERS, min_size=15, max_size=40),
)
def test_any_interleaving_gives_every_request_the_tokens_it_has_alone(
    max_rows: int, max_running: int, max_cached: int | None, orders: list[Order]
) -> None:
    world = World(max_rows, max_running, max_cached)
    for order in orders:
        world.obey(order)
        world.check()
    world.drain()
    world.check()
