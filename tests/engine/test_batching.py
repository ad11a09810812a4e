"""Each request gets the tokens it would get alone: in a batch, after late arrivals, aborts and chunked prompts."""

import random

import pytest

from tests.fakes import VARIANTS, Watched, alone, byte_tokenizer, decoder, drain, lively_model, reciter
from trimode.engine.completion import completion
from trimode.engine.engine import Engine
from trimode.engine.request import Request
from trimode.engine.scheduler import admit
from trimode.numerics.sampling import Sampling

pytestmark = pytest.mark.medium

PROMPTS = [[5], [7, 8, 9], list(range(4, 21)), [1, *range(40, 60)] * 2]
every_mode = pytest.mark.parametrize("variant", VARIANTS)
MODEL = lively_model(1)


def wishes(n: int) -> list[tuple[str, dict[str, object]]]:
    """n requests of all modes, with lengths and ways of choosing of their own."""
    order = random.Random(3)
    names = list(VARIANTS)
    return [
        (
            names[i % len(names)],
            dict(
                prompt=order.choice(PROMPTS),
                max_tokens=order.choice((1, 2, 5, 12, 20)),
                sampling=Sampling(temperature=order.choice((0.0, 0.0, 1.5)), seed=i),
            ),
        )
        for i in range(n)
    ]


def submit(engine: Engine, variant: str, wish: dict[str, object]) -> Request:
    wish = dict(wish)
    return engine.submit(wish.pop("prompt"), decoder(variant, engine.model.config), **wish)


def as_alone(variant: str, wish: dict[str, object]) -> Request:
    return alone(MODEL, variant, **wish)


def outcome(request: Request) -> tuple[object, ...]:
    """The answer with its cost, which in `auto` follows the load."""
    cost = dict(request.counts.forwards), completion(request).acceptance
    return request.answer, request.finish, None if request.decoder.mode == "auto" else cost


@pytest.mark.parametrize("max_running", [3, 64])
def test_together_each_gets_what_it_gets_alone(max_running: int) -> None:
    engine = Engine(MODEL, max_running=max_running)
    wanted = wishes(24)
    requests = [submit(engine, *wish) for wish in wanted]
    drain(engine)
    for request, wish in zip(requests, wanted, strict=True):
        assert outcome(request) == outcome(as_alone(*wish))


def test_late_arrivals_and_aborts_change_nobody_elses_text() -> None:
    engine = Engine(MODEL)
    wanted = wishes(30)
    requests: list[Request] = []
    order = random.Random(1)
    aborted: dict[int, tuple[int, ...]] = {}
    while len(requests) < len(wanted) or not engine.is_idle:
        if len(requests) < len(wanted) and order.random() < 0.6:
            requests.append(submit(engine, *wanted[len(requests)]))
        engine.step()
        going = [request for request in requests if request.finish is None]
        if going and order.random() < 0.12:
            victim = order.choice(going)
            event = engine.abort(victim)
            assert event.finish == victim.finish == "cancelled"
            aborted[victim.id] = victim.answer
    assert 3 <= len(aborted) <= 20
    for request, wish in zip(requests, wanted, strict=True):
        by_itself = as_alone(*wish)
        if request.id in aborted:
            assert request.answer == aborted[request.id]  # nothing came after the abort
            assert by_itself.answer[: len(request.answer)] == request.answer
        else:
            assert outcome(request) == outcome(by_itself)


def test_an_aborted_request_keeps_its_text_and_its_held_back_end() -> None:
    tokenizer = byte_tokenizer()
    model = reciter("hello world", 2)
    engine = Engine(model, tokenizer)
    request = engine.submit([5, 6], decoder("ar", model.config), stop=("lo, there",))
    pieces = [event.text for _ in range(5) for event in engine.step()]
    assert "".join(pieces) == "hel"
    event = engine.abort(request)
    assert event.text == "lo"
    assert engine.is_idle
    again = engine.abort(request)
    assert (again.text, again.finish) == ("", "cancelled")


def test_an_abort_before_the_first_forward_gives_an_empty_answer() -> None:
    engine = Engine(MODEL)
    request = engine.submit([5], decoder("ar", MODEL.config))
    engine.abort(request)
    assert engine.is_idle
    assert engine.step() == []
    assert (request.answer, request.finish, request.counts.forwards.total()) == ((), "cancelled", 0)


@every_mode
@pytest.mark.parametrize("max_rows", [1, 3, 8])
def test_a_prompt_in_parts_gives_the_text_of_a_whole_one(variant: str, max_rows: int) -> None:
    for prompt in PROMPTS[1:]:
        for temperature in (0.0, 1.5):
            sampling = Sampling(temperature=temperature, seed=4)
            whole = alone(MODEL, variant, prompt, max_tokens=12, sampling=sampling)
            engine = Engine(MODEL, max_rows=max_rows)
            request = engine.submit(prompt, decoder(variant, MODEL.config), max_tokens=12, sampling=sampling)
            drain(engine)
            assert request.answer == whole.answer
            assert request.finish == whole.finish
            assert whole.counts.prefill_parts == 0
            assert request.counts.forwards["prefill"] == 1  # only the part that was read
            ours, theirs = dict(request.counts.forwards), dict(whole.counts.forwards)
            assert ours.pop("commit", 0) >= theirs.pop("commit", 0)  # finished blocks come in parts as well
            if VARIANTS[variant][0] in ("ar", "diffusion"):  # of the others the budget may shorten drafts
                assert ours == theirs


def test_the_parts_of_a_prompt_are_as_large_as_the_rows_allow() -> None:
    engine = Engine(MODEL, max_rows=16)
    request = engine.submit([4] * 50, decoder("ar", MODEL.config), max_tokens=2)
    drain(engine)
    assert request.counts.prefill_parts == 3
    assert dict(request.counts.forwards) == {"prefill": 1, "decode": 1}


@pytest.mark.parametrize("max_rows", [1, 4, 9, 20])
def test_with_more_requests_than_rows_nobody_waits_longer_than_the_number_of_requests(max_rows: int) -> None:
    engine = Engine(MODEL, max_rows=max_rows)
    wanted = wishes(14)
    requests = [submit(engine, *wish) for wish in wanted]
    waited = dict.fromkeys((request.id for request in requests), 0)
    work = dict.fromkeys(waited, 0)
    n_forwards = 0
    while not engine.is_idle:
        engine.step()
        n_forwards += 1
        for request in requests:
            done = request.counts.forwards.total() + request.counts.prefill_parts
            waited[request.id] = 0 if done > work[request.id] or request.finish else waited[request.id] + 1
            work[request.id] = done
            assert waited[request.id] < len(requests)
    assert n_forwards <= sum(work.values())
    for request, wish in zip(requests, wanted, strict=True):
        assert (request.answer, request.finish) == outcome(as_alone(*wish))[:2]


def test_a_forward_holds_no_more_rows_than_allowed_unless_one_canvas_alone_is_wider() -> None:
    rows: list[tuple[int, int]] = []
    model = Watched(MODEL, lambda positions_T, visibility: rows.append((len(positions_T), len(visibility.layouts))))
    engine = Engine(model, max_rows=12)
    for wish in wishes(20):
        submit(engine, *wish)
    drain(engine)
    assert all(n <= 12 or n_requests == 1 for n, n_requests in rows)
    assert max(n_requests for _, n_requests in rows) >= 3


def test_admission_takes_in_order_what_still_fits_and_always_the_first() -> None:
    assert admit([5, 5, 5], 10) == [0, 1]
    assert admit([30, 1], 10) == [0]
    assert admit([4, 8, 6], 10) == [0, 2]
    assert admit([1], 0) == [0]
    assert admit([], 10) == []


def test_a_step_of_an_idle_engine_does_nothing() -> None:
    engine = Engine(MODEL)
    assert engine.is_idle
    assert engine.step() == []
