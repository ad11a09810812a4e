"""The thread that owns the engine: clients come, leave and fail without touching each other."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.fakes import alone, byte_tokenizer, decoder, lively_model
from trimode.engine.engine import Engine
from trimode.engine.request import Request
from trimode.errors import InvalidInput
from trimode.models.transformer import Model
from trimode.server.worker import Ticket, Worker

pytestmark = pytest.mark.medium
PROMPT = [5, 6, 7, 8]


class Breaking:
    """A model whose forwards fail while any of them holds a certain token, `n` times at most."""

    def __init__(self, model: Model, token: int, n: int = 10**9) -> None:
        self._model, self._token, self.n = model, token, n

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, tokens_T: Any, *rest: Any, **named: Any) -> Any:
        if self.n and self._token in tokens_T.tolist():
            self.n -= 1
            raise MemoryError("no room")
        return self._model(tokens_T, *rest, **named)


def run(model: Any, act: Callable[[Worker], Coroutine[Any, Any, Any]]) -> Any:
    worker = Worker(Engine(model, byte_tokenizer(), isolates=True))
    worker.start()
    try:
        return asyncio.run(asyncio.wait_for(act(worker), 60))
    finally:
        worker.stop()
        assert not [thread for thread in threading.enumerate() if thread.name == "trimode-engine"]


def asking(prompt: list[int], max_tokens: int = 20, mode: str = "ar") -> Callable[[Engine], Request]:
    return lambda engine: engine.submit(prompt, decoder(mode, engine.model.config), max_tokens=max_tokens)


async def started(worker: Worker, make: Callable[[Engine], Request]) -> Ticket:
    return (await worker.submit([make]))[0]


async def whole(ticket: Ticket) -> list[int]:
    return [token async for event in ticket.events() for token in event.tokens]


def test_answers_are_those_of_the_engine_alone_whoever_shares_it() -> None:
    model = lively_model()
    prompts = [[5 + n, 6, 7] for n in range(6)]
    modes = ("ar", "diffusion", "self_speculation") * 2

    async def act(worker: Worker) -> list[list[int]]:
        tickets = [await started(worker, asking(p, mode=m)) for p, m in zip(prompts, modes, strict=True)]
        return await asyncio.gather(*map(whole, tickets))

    found = run(model, act)
    assert found == [
        list(alone(model, m, p, max_tokens=20).answer) for p, m in zip(prompts, modes, strict=True)
    ]  # fmt: skip


def test_what_is_refused_raises_where_it_was_asked() -> None:
    async def act(worker: Worker) -> None:
        with pytest.raises(InvalidInput, match="the prompt is empty"):
            await started(worker, asking([]))
        with pytest.raises(InvalidInput, match="the prompt is empty"):
            await worker.submit([asking(PROMPT), asking([])])
        assert worker.n_open == 0 and worker.engine.is_idle
        assert len(await whole(await started(worker, asking(PROMPT)))) > 0

    run(lively_model(), act)


def test_a_client_that_leaves_frees_its_place_at_once() -> None:
    async def act(worker: Worker) -> None:
        tickets = [await started(worker, asking(PROMPT, 1000)) for _ in range(3)]
        stays = asyncio.create_task(whole(await started(worker, asking(PROMPT, 50))))
        for ticket in tickets:
            async for event in ticket.events():
                if event.tokens:
                    break
            ticket.leave()
        await stays
        assert worker.n_open == 0
        assert [ticket.request.finish for ticket in tickets] == ["cancelled"] * 3
        assert all(ticket.request.cache.length == 0 for ticket in tickets)

    run(lively_model(), act)


def test_a_reader_that_is_cancelled_ends_its_request() -> None:
    async def act(worker: Worker) -> None:
        ticket = await started(worker, asking(PROMPT, 2000))
        reader = asyncio.create_task(whole(ticket))
        await asyncio.sleep(0.05)
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        await whole(await started(worker, asking(PROMPT, 1)))  # behind the abort
        assert ticket.request.finish == "cancelled"
        assert worker.n_open == 0

    run(lively_model(), act)


def test_of_a_forward_that_fails_only_the_request_that_fails_alone_ends() -> None:
    model = lively_model()
    bad = 50

    async def act(worker: Worker) -> list[list[int]]:
        tickets = [await started(worker, asking(p)) for p in (PROMPT, [bad, 6], [9, 9])]
        found = await asyncio.gather(*map(whole, tickets))
        assert [ticket.request.finish == "error" for ticket in tickets] == [False, True, False]
        assert worker.n_open == 0
        return list(found)

    first, _, last = run(Breaking(model, bad), act)
    assert first == list(alone(model, "ar", PROMPT, max_tokens=20).answer)
    assert last == list(alone(model, "ar", [9, 9], max_tokens=20).answer)


def test_a_forward_that_fails_once_is_repeated_for_each() -> None:
    model = lively_model()

    async def act(worker: Worker) -> list[list[int]]:
        tickets = [await started(worker, asking(p)) for p in (PROMPT, [9, 9])]
        return list(await asyncio.gather(*map(whole, tickets)))

    assert run(Breaking(model, PROMPT[0], n=1), act) == [
        list(alone(model, "ar", p, max_tokens=20).answer) for p in (PROMPT, [9, 9])
    ]


def test_the_end_of_the_worker_ends_every_request() -> None:
    async def act(worker: Worker) -> list[str | None]:
        tickets = [await started(worker, asking(PROMPT, 2000)) for _ in range(3)]
        readers = [asyncio.create_task(whole(ticket)) for ticket in tickets]
        await asyncio.to_thread(worker.stop)
        await asyncio.gather(*readers)
        return [ticket.request.finish for ticket in tickets]

    assert run(lively_model(), act) == ["cancelled"] * 3


def test_work_that_does_not_move_shows_as_a_stall() -> None:
    held = threading.Event()

    async def act(worker: Worker) -> None:
        assert worker.stalled_for == 0
        worker.stepped_at -= 1000  # asleep for long
        made = asyncio.create_task(started(worker, lambda engine: held.wait() and asking(PROMPT, 1)(engine)))
        await asyncio.sleep(0.05)
        waiting = asyncio.create_task(started(worker, asking(PROMPT, 1)))
        await asyncio.sleep(0.05)
        assert 0.02 < worker.stalled_for < 900
        held.set()
        for ticket in await asyncio.gather(made, waiting):
            await whole(ticket)
        assert worker.stalled_for == 0

    run(lively_model(), act)


def test_an_engine_that_fails_as_a_whole_ends_what_runs_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(worker: Worker) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(worker.engine, "step", lambda: 1 / 0)
            tickets = await worker.submit([asking(PROMPT), asking([9, 9])])
            await asyncio.gather(*map(whole, tickets))
        assert [ticket.request.finish for ticket in tickets] == ["error", "error"]
        assert worker.n_open == 0
        assert await whole(await started(worker, asking(PROMPT, 3)))

    run(lively_model(), act)
