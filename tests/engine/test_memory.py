"""Texts that begin alike share pages, in every mode, and nobody's answer changes by it; memory keeps its limit."""

import random
from typing import Any

import pytest
import torch

from tests.fakes import VARIANTS, alone, decoder, drain, lively_model, written
from tests.native.models import SHAPES, native
from trimode.api import completion
from trimode.decoding import build
from trimode.engine.engine import Engine
from trimode.engine.request import Request

pytestmark = pytest.mark.medium
MODEL = lively_model(1)
TEXT = [4 + (7 * i) % 50 for i in range(60)]


def shared(model: Any = MODEL, max_cached: int = 4096, **limits: Any) -> Engine:
    return Engine(model, max_cached=max_cached, reuses=True, **limits)


def asked(engine: Engine, variant: str, prompt: list[int], **options: Any) -> Request:
    request = engine.submit(prompt, decoder(variant, engine.model.config), **{"max_tokens": 20} | options)
    drain(engine)
    return request


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_text_that_begins_like_another_is_not_computed_again(variant: str) -> None:
    engine = shared()
    first = asked(engine, "ar", TEXT)
    second = asked(engine, variant, TEXT)
    longer = asked(engine, variant, [*TEXT, *first.answer[:15], 9])
    plain = alone(MODEL, variant, TEXT, max_tokens=20)
    assert (second.answer, second.counts.forwards) == (plain.answer, plain.counts.forwards)
    assert longer.answer == alone(MODEL, variant, longer.tokens[: longer.n_prompt], max_tokens=20).answer
    assert completion(first).cached_tokens == 0
    assert completion(second).cached_tokens == 48  # whole pages of 16, and never the last token
    assert completion(longer).cached_tokens == 64  # an answer, too, is known
    assert engine.memory.pages.n_held == 0


@pytest.mark.parametrize("variant", ["ar", "fused", "draft of 8", "quadratic of 7"])
def test_requests_share_pages_while_they_run_and_write_no_others(variant: str) -> None:
    engine = shared(max_rows=40)
    requests = [engine.submit([*TEXT[:33], 5 + n], decoder(variant, MODEL.config), max_tokens=25) for n in range(4)]
    engine.step()
    drained = [engine.submit([*TEXT[:33], 5 + n], decoder(variant, MODEL.config), max_tokens=25) for n in range(4)]
    drain(engine)
    for n, (one, other) in enumerate(zip(requests, drained, strict=True)):
        expected = alone(MODEL, variant, [*TEXT[:33], 5 + n], max_tokens=25).answer
        assert one.answer == other.answer == expected


def test_what_is_known_is_what_a_fresh_prefill_computes() -> None:
    engine = shared()
    asked(engine, "quadratic of 7", TEXT)
    for variant in ("diffusion", "ar"):
        request = engine.submit([*TEXT, 5], decoder(variant, MODEL.config), max_tokens=8)
        engine.step()
        fresh = Engine(MODEL)
        other = fresh.submit([*TEXT, 5], decoder(variant, MODEL.config), max_tokens=8)
        fresh.step()
        n = other.cache.length
        assert request.cache.length == n >= 60 and request.n_cached == 48
        torch.testing.assert_close(written(request.cache, n), written(other.cache, n), atol=2e-5, rtol=1e-4)
        drain(engine)


def test_pages_out_of_order_serve_as_well_as_those_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers written side by side in a memory that gives nothing ahead take turns at its pages."""
    monkeypatch.setattr("trimode.engine.memory.AHEAD", 0)
    engine = shared()
    requests = [engine.submit([5 + n, 6], decoder("ar", MODEL.config), max_tokens=50) for n in range(2)]
    were_apart = False
    while not engine.is_idle:
        engine.step()
        were_apart |= any(request.cache.offset is None for request in requests)
    assert were_apart
    for n, request in enumerate(requests):
        assert request.answer == alone(MODEL, "ar", [5 + n, 6], max_tokens=50).answer


@pytest.mark.parametrize("shape", list(SHAPES)[:3])
def test_the_native_forward_reads_pages_in_any_order_with_the_same_bits(shape: str) -> None:
    model, prompt = native(shape), [4 + token % 29 for token in TEXT[:30]]
    for seed in range(2):
        order = list(range(12))
        random.Random(seed).shuffle(order)
        engine, plain = Engine(model), Engine(model)
        pages = iter(order)
        engine.memory.pages._next = lambda after, pages=pages: next(pages)  # type: ignore[method-assign, misc]
        for variant in ("ar", "quadratic of 7"):
            requests = [
                each.submit(prompt, decoder(variant, model.config), max_tokens=40, watch=True)
                for each in (engine, plain)
            ]
            told = [[], []]  # type: ignore[var-annotated]
            for each, found in zip((engine, plain), told, strict=True):
                while not each.is_idle:
                    found += [(event.tokens, event.named, event.view) for event in each.step()]
            assert told[0] == told[1]
            assert requests[0].counts.forwards == requests[1].counts.forwards


def test_numbers_that_are_none_do_not_reach_who_has_the_page_next() -> None:
    model = native(next(iter(SHAPES)))
    engine = Engine(model)
    first = asked(engine, "ar", TEXT[:20])
    pool = engine.memory._pool
    pool.k[:] = pool.v[:] = float("nan")  # type: ignore[attr-defined]
    assert asked(engine, "ar", TEXT[:20]).answer == first.answer
    assert asked(engine, "quadratic of 7", TEXT[:20]).answer == first.answer


def test_a_memory_that_cannot_grow_ends_the_request_that_needs_it_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = Engine(MODEL, isolates=True)
    small = engine.submit([5, 6], decoder("ar", MODEL.config), max_tokens=30)
    engine.step()
    pool = engine.memory._pool

    def grow(capacity: int) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(pool, "grow", grow)
    large = engine.submit([4 + i % 50 for i in range(240)], decoder("ar", MODEL.config), max_tokens=9)
    drain(engine)
    assert (large.finish, large.answer) == ("error", ())
    assert small.answer == alone(MODEL, "ar", [5, 6], max_tokens=30).answer
    assert engine.memory.pages.n_held == 0


def test_another_salt_or_adapter_shares_nothing() -> None:
    engine = shared()
    asked(engine, "ar", TEXT, cache_salt="mine")
    assert completion(asked(engine, "ar", TEXT, cache_salt="yours")).cached_tokens == 0
    assert completion(asked(engine, "ar", TEXT)).cached_tokens == 0
    assert completion(asked(engine, "ar", TEXT, cache_salt="mine")).cached_tokens == 48


def test_a_prompt_that_is_scored_is_computed() -> None:
    engine = shared()
    asked(engine, "ar", TEXT)
    scored = asked(engine, "ar", TEXT, prompt_logprobs=0)
    told = completion(scored)
    assert told.cached_tokens == 0 and told.prompt_logprobs is not None and len(told.prompt_logprobs) == len(TEXT)


@pytest.mark.parametrize("variant", ["ar", "fused", "several looks", "mixture", "pruned of 7"])
def test_a_preempted_request_finds_its_pages_again(variant: str) -> None:
    for moment in (1, 3, 6):
        engine = shared()
        request = engine.submit(TEXT, decoder(variant, MODEL.config), max_tokens=30)
        for _ in range(moment):
            engine.step()
        if request.finish is None:
            engine.preempt(request)
            assert request.cache.pages == () and engine.memory.pages.n_held == 0
            engine.step()
            assert request.cache.length >= 48
            drain(engine)
        plain = alone(MODEL, variant, TEXT, max_tokens=30)
        assert (request.answer, request.counts.forwards) == (plain.answer, plain.counts.forwards)


@pytest.mark.parametrize("variant", ["ar", "fused", "draft of 3"])
def test_a_change_writes_no_page_that_is_known(variant: str) -> None:
    for n in (15, 16, 17, 31, 32, 33):
        engine = shared()
        request = engine.submit(TEXT[:n], decoder(variant, MODEL.config), max_tokens=40)
        for _ in range(3):
            engine.step()
        so_far = request.answer
        known = {page for page, _ in engine.memory.pages._known.values()}
        engine.change(request, decoder("ar", MODEL.config))
        n_kept = len(request.nodes)
        assert request.cache.length >= n_kept * 16
        assert not known & set(request.cache.pages[n_kept:])
        drain(engine)
        rest = alone(MODEL, "ar", [*TEXT[:n], *so_far], max_tokens=40 - len(so_far))
        assert request.answer == (*so_far, *rest.answer)


def test_memory_keeps_its_limit_and_all_come_to_their_end() -> None:
    for max_cached in (64, 100, 200):
        engine = shared(max_cached=max_cached)
        rng = random.Random(max_cached)
        prompts = [TEXT[: rng.randint(1, 40)] for _ in range(12)]
        variants = [rng.choice(list(VARIANTS)) for _ in prompts]
        requests = [
            engine.submit(prompt, decoder(v, MODEL.config), max_tokens=12)
            for prompt, v in zip(prompts, variants, strict=True)
        ]
        while not engine.is_idle:
            engine.step()
            if engine.n_running > 1:
                assert engine.memory.pages.n_held * 16 <= -(-max_cached // 16) * 16
        for request, prompt, variant in zip(requests, prompts, variants, strict=True):
            assert request.answer == alone(MODEL, variant, prompt, max_tokens=12).answer
        assert engine.memory.pages.n_held == 0


@pytest.mark.parametrize("canvas_logits", ["own", "shifted"])
def test_blocks_that_see_both_ways_share_whole_blocks(canvas_logits: str) -> None:
    model = lively_model(0, commit_visibility="block", canvas_logits=canvas_logits, block_size=12)
    prompt = [4 + (7 * i) % 50 for i in range(100)]
    engine, plain = shared(model), Engine(model)
    requests = []
    for each in (engine, engine, plain):
        requests.append(each.submit(prompt, build("diffusion", model.config), max_tokens=20))
        drain(each)
    assert [completion(request).cached_tokens for request in requests] == [0, 96, 0]
    assert requests[0].answer == requests[1].answer == requests[2].answer
