"""Preempted and changed requests: what is recomputed, what is counted, and what is refused."""

from itertools import product

import pytest

from tests.fakes import VARIANTS, alone, decoder, drain, lively_model
from trimode.decoding import build
from trimode.engine.engine import Engine
from trimode.engine.request import Request
from trimode.errors import InvalidInput

pytestmark = pytest.mark.medium

MODEL = lively_model(1, eos_token_ids=(2, 18, 35))
PROMPT = tuple(range(4, 21))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("max_rows", [4, 2048])
def test_a_preempted_request_needs_the_same_forwards_and_some_that_are_counted_apart(
    variant: str, max_rows: int
) -> None:
    def begun() -> tuple[Engine, Request]:
        engine = Engine(MODEL, max_rows=max_rows)
        return engine, engine.submit(PROMPT, decoder(variant, MODEL.config), max_tokens=12)

    calm, whole = begun()
    drain(calm)
    for moment in (1, 2, 4, 7):
        engine, request = begun()
        for _ in range(moment):
            engine.step()
        if request.finish is None:
            n = request.cache.length
            engine.preempt(request)
            assert request.cache.capacity == 0  # its memory is free at once
            drain(engine)
            assert request.counts.prefill_parts - whole.counts.prefill_parts == -(-n // max_rows)
        assert (request.answer, request.finish) == (whole.answer, whole.finish)
        assert request.counts.forwards == whole.counts.forwards
        assert request.counts.accepted == whole.counts.accepted
        assert request.cache.capacity == 0  # nobody reads it any more


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_change_at_any_moment_is_a_start_from_the_text_so_far(variant: str) -> None:
    for moment, after in product(range(1, 6), ("ar", "fused", "draft of 3")):
        engine = Engine(MODEL)
        request = engine.submit(PROMPT, decoder(variant, MODEL.config), max_tokens=15)
        for _ in range(moment):
            engine.step()
        so_far = request.answer
        if request.finish is None:
            engine.change(request, decoder(after, MODEL.config))
            drain(engine)
            rest = alone(MODEL, after, (*PROMPT, *so_far), max_tokens=15 - len(so_far))
            assert (request.answer, request.finish) == ((*so_far, *rest.answer), rest.finish)


@pytest.mark.medium
@pytest.mark.parametrize("canvas_logits", ["own", "shifted"])
@pytest.mark.parametrize("max_rows", [4, 10, 2048])
def test_blocks_that_see_both_ways_are_recomputed_and_kept_whole(canvas_logits: str, max_rows: int) -> None:
    model = lively_model(0, commit_visibility="block", canvas_logits=canvas_logits, block_size=4)

    def begun(prompt: list[int], max_tokens: int, threshold: float, n_steps: int) -> tuple[Engine, Request]:
        engine = Engine(model, max_rows=max_rows)
        diffusion = build("diffusion", model.config, confidence_threshold=threshold)
        request = engine.submit(prompt, diffusion, max_tokens=max_tokens)
        for _ in range(n_steps):
            engine.step()
        return engine, request

    for prompt, moment in product(([5], [7, 8, 9, 10], list(range(4, 21))), range(0, 14, 3)):
        calm, whole = begun(prompt, 20, 0.4, 0)
        drain(calm)
        engine, request = begun(prompt, 20, 0.4, moment)
        if request.finish is None:
            engine.preempt(request)
            drain(engine)
        assert (request.answer, request.counts.forwards) == (whole.answer, whole.counts.forwards)
        engine, request = begun(prompt, 20, 0.4, moment)
        so_far = request.answer
        if request.finish is None:
            engine.change(request, build("diffusion", model.config, confidence_threshold=1.1))
            drain(engine)
            calm, rest = begun([*prompt, *so_far], 20 - len(so_far), 1.1, 0)
            drain(calm)
            assert request.answer == (*so_far, *rest.answer)


def test_where_memory_runs_out_the_oldest_goes_on_and_all_come_to_their_end() -> None:
    engine = Engine(MODEL, max_cached=30)
    requests = [engine.submit(PROMPT, decoder("ar", MODEL.config), max_tokens=9) for _ in range(3)]
    while requests[0].finish is None:
        engine.step()
    assert [len(request.answer) > 0 for request in requests] == [True, False, False]
    drain(engine)
    assert len({request.answer for request in requests}) == 1


def test_what_has_ended_can_neither_change_nor_be_preempted() -> None:
    engine = Engine(MODEL)
    request = engine.submit([5], decoder("ar", MODEL.config), max_tokens=1)
    drain(engine)
    with pytest.raises(InvalidInput, match="has ended"):
        engine.change(request, decoder("fused", MODEL.config))
    with pytest.raises(InvalidInput, match="has ended"):
        engine.preempt(request)


def test_memory_for_nothing_is_refused() -> None:
    with pytest.raises(InvalidInput, match="max_cached"):
        Engine(MODEL, max_cached=0)
