"""A service whose engine hangs, breaks or ends tells its clients so, and lets none wait for ever."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.fakes import byte_tokenizer, lively_model
from trimode.api import LLM
from trimode.server import service as module
from trimode.server.body import CompletionBody
from trimode.server.checking import parse
from trimode.server.reading import read
from trimode.server.refusals import Refused
from trimode.server.service import Service
from trimode.server.settings import Settings
from trimode.server.worker import Ticket

pytestmark = pytest.mark.medium


async def asked(service: Service, **more: Any) -> list[Ticket]:
    body, warnings = parse(CompletionBody, {"prompt": "abc", "max_tokens": 50, "min_tokens": 50} | more)
    return await service.submit(read(body, warnings, {}, "ar"), [[5, 6, 7]], None)


def run(service: Service, act: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    service.worker.start()
    try:
        return asyncio.run(asyncio.wait_for(act(), 60))
    finally:
        service.worker.stop()


def test_an_engine_that_hangs_lets_no_client_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE", 0.2)
    service = Service(LLM(lively_model(), byte_tokenizer()), Settings(request_seconds=0.5, stall_seconds=0.2))
    hang, step = threading.Event(), service.worker.engine.step

    def hanging() -> Any:
        hang.wait(30)
        return step()

    async def act() -> None:
        monkeypatch.setattr(service.worker.engine, "step", hanging)
        tickets = await asked(service)
        with pytest.raises(Refused, match="no answer within") as caught:
            await service.finish(tickets)
        assert caught.value.status == 503
        with pytest.raises(Refused) as caught:
            await asked(service)
        assert caught.value.status == 503
        assert service.is_stalled
        hang.set()

    run(service, act)


def test_a_thread_that_has_ended_is_known_at_once() -> None:
    service = Service(LLM(lively_model(), byte_tokenizer()), Settings())
    service.worker.start()
    service.worker.stop()
    assert service.is_stalled
    with pytest.raises(Refused, match="the engine has ended"):
        service.check_load(1)


def test_a_watcher_that_fails_takes_nobody_along() -> None:
    service = Service(LLM(lively_model(), byte_tokenizer()), Settings())

    def failing(*given: Any) -> None:
        raise ValueError("a broken watcher")

    service.worker.watch(failing)

    async def act() -> int:
        (done,) = await service.finish(await asked(service))
        return done.completion_tokens

    assert run(service, act) == 50


def test_an_engine_that_breaks_ends_all_with_their_memory_and_time() -> None:
    service = Service(LLM(lively_model(), byte_tokenizer()), Settings())
    engine = service.worker.engine
    step, n = engine.step, 0

    def breaking() -> Any:
        nonlocal n
        n += 1
        if n == 4:
            raise MemoryError("no room")
        return step()

    engine.step = breaking  # type: ignore[method-assign]

    async def act() -> None:
        tickets = await asked(service, n=2)
        with pytest.raises(Refused) as caught:
            await service.finish(tickets)
        assert caught.value.status == 500
        await asyncio.sleep(0.1)
        assert engine.is_idle and engine.memory.pages.n_held == 0
        assert all(ticket.request.seconds > 0 for ticket in tickets)
        (done,) = await service.finish(await asked(service))
        assert done.completion_tokens == 50

    run(service, act)
