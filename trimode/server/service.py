"""The model behind the endpoints: queues what is asked and gives answers back. Knows no route and no socket."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from typing import Any

from trimode.api import BUNDLED, LLM
from trimode.decoding import MODES, build, default_mode, options
from trimode.decoding.aliases import canonical_mode
from trimode.engine.completion import Completion, completion
from trimode.engine.engine import Engine
from trimode.engine.events import Event
from trimode.engine.memory import fitting_positions
from trimode.engine.request import Request
from trimode.errors import InvalidInput
from trimode.server.reading import Ask
from trimode.server.refusals import Refused
from trimode.server.settings import Settings
from trimode.server.worker import Ticket, Worker

Make = Callable[[Engine], Request]
GRACE = 5.0  # seconds in which the engine is to end a request whose time is over


class Service:
    """One model, one engine, one thread."""

    def __init__(self, llm: LLM, settings: Settings) -> None:
        self.llm, self.settings, self._is_closing = llm, settings, False
        folder = llm.folder if llm.folder != BUNDLED else None
        self.name = settings.served_model_name or (folder.name if folder else "trimode")
        self.mode = canonical_mode(settings.generation_mode or default_mode(llm.model.config))
        self.modes = tuple(mode for mode in MODES if _has(llm, mode))
        self._check_defaults()
        whole = llm.model.config.context_length
        self.context = min(whole, settings.max_model_len or whole)
        limit = settings.kv_tokens or fitting_positions(llm.served, self.context)
        self.worker = Worker(llm.engine(
            max_running=settings.max_running_requests, max_cached=limit, reuses=not settings.no_prefix_reuse,
            isolates=True,
        ))  # fmt: skip
        self.kv_tokens = limit

    @property
    def is_stalled(self) -> bool:
        return self.worker.stalled_for > self.settings.stall_seconds

    def _check_defaults(self) -> None:
        """Refuse at the start what every request of a mode would be refused for."""
        if self.mode not in self.modes:
            raise InvalidInput(f"generation_mode is {self.mode!r}, allowed here are {', '.join(self.modes)}")
        for mode in self.modes:
            known = options(mode, self.llm.model.config)
            chosen = {name: value for name, value in self.settings.decoding.items() if name in known}
            build(mode, self.llm.model.config, self.llm.cost, **chosen)

    def check_model(self, name: str | None) -> None:
        """404 for a model that is not the one here."""
        if name not in (None, "", self.name):
            raise Refused(
                404, f"model {name!r} is not served here, {self.name!r} is", param="model", code="model_not_found"
            )

    async def submit(self, ask: Ask, prompts: Sequence[list[int]], max_tokens: int | None) -> list[Ticket]:
        """Queue every prompt `n` times. All are accepted, or none."""
        self.check_load(len(prompts) * ask.n)  # again: others may have come while the prompts were read
        makes: list[Make] = []
        for prompt in prompts:
            room = self.context - len(prompt)
            if room < 1:
                raise Refused(
                    400, f"the prompt has {len(prompt)} tokens, the context holds {self.context} and one is needed "
                    "for the answer", param=ask.asks, code="context_length_exceeded",
                )  # fmt: skip
            limit = min(ask.options.get("max_tokens", max_tokens or room), room)
            chosen = dict(ask.options) | {"max_tokens": limit, "watch": ask.denoise}
            makes += [self._maker(prompt, chosen, choice) for choice in range(ask.n)]
        try:
            async with asyncio.timeout(self.settings.request_seconds):
                return await self.worker.submit(makes)
        except TimeoutError:
            raise self._overdue() from None

    def _maker(self, prompt: list[int], chosen: dict[str, Any], choice: int) -> Make:
        arrived_at = time.perf_counter()

        def make(engine: Engine) -> Request:
            request = self.llm.submit(engine, prompt, **chosen)
            request.sampling, request.started_at = replace(request.sampling, choice=choice), arrived_at
            return request

        return make

    def check_load(self, n: int) -> None:
        """Refuse n more answers where they are too many, now or at any time. Before anything is done for them."""
        settings = self.settings
        most = min(settings.max_answers, settings.max_running_requests + settings.max_queued_requests)
        if n > most:
            raise Refused(400, f"n is {n} answers in all, allowed are 1 to {most}", param="n")
        if not self.worker.is_alive:
            raise Refused(503, "the engine has ended")
        if self.is_full(n):
            raise Refused(
                429, f"{self.worker.n_open} answers are being written or wait, try again later",
                code="queue_full", headers={"Retry-After": "1"},
            )  # fmt: skip

    def is_full(self, n: int) -> bool:
        """Whether n more answers are more than may run and wait."""
        limits = self.settings
        return self.worker.n_open + n > limits.max_running_requests + limits.max_queued_requests

    async def finish(self, tickets: Sequence[Ticket]) -> list[Completion]:
        """Wait for whole answers, at most `request_seconds`."""
        async with contextlib.aclosing(self.merged(tickets)) as events:
            async for _ in events:
                pass
        return [completion(ticket.request) for ticket in tickets]

    async def merged(self, tickets: Sequence[Ticket]) -> AsyncGenerator[tuple[int, Event]]:
        """The events of several requests as they come, with the number of the request. Raises Refused where one fails.

        What is not there after `request_seconds` is not waited for: those requests end as `cancelled`; who has not
        begun, or whose engine does not even end it, is refused.
        """
        queue: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()

        async def read(number: int, ticket: Ticket) -> None:
            async for event in ticket.events():
                queue.put_nowait((number, event))

        readers = [asyncio.create_task(read(number, ticket)) for number, ticket in enumerate(tickets)]

        def leave() -> None:
            for ticket in tickets:
                ticket.leave()

        clock = asyncio.get_running_loop().call_later(self.settings.request_seconds, leave)
        end = asyncio.get_running_loop().time() + self.settings.request_seconds + GRACE
        try:
            left = len(tickets)
            while left:
                async with asyncio.timeout_at(end):
                    number, event = await queue.get()
                if event.finish == "error":
                    raise self._failed()
                if event.finish == "cancelled" and not tickets[number].request.answer:
                    raise self._overdue()
                left -= event.finish is not None
                yield number, event
        except TimeoutError:
            raise self._overdue() from None
        finally:
            clock.cancel()
            for reader in readers:
                reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*readers, return_exceptions=True)

    def close(self) -> None:
        """End what is still at work: who waits for it is told that the server closes."""
        self._is_closing = True
        self.worker.end_all()

    def _failed(self) -> Refused:
        if self._is_closing:
            return Refused(503, "the server closes")
        return Refused(500, "the server failed while it worked on this request")

    def _overdue(self) -> Refused:
        limit = self.settings.request_seconds
        return Refused(503, f"there was no answer within {limit:g} s", headers={"Retry-After": "1"})

    def properties(self) -> dict[str, Any]:
        """What this server is, what it allows, and the parameters of every mode, read off the decoders."""
        config, limits = self.llm.model.config, self.settings
        return {
            "model": self.name, "model_type": config.model_type, "context_length": self.context,
            "vocab_size": config.vocab_size, "dtype": str(self.llm.model.dtype).removeprefix("torch."),
            "backend": self.llm.backend, "default_generation_mode": self.mode,
            "defaults": dict(limits.decoding),
            "modes": {mode: _parameters(mode, config) for mode in self.modes},
            "limits": {
                "max_running_requests": limits.max_running_requests, "max_queued_requests": limits.max_queued_requests,
                "max_answers": limits.max_answers, "max_body_bytes": limits.max_body_bytes,
                "request_seconds": limits.request_seconds, "kv_tokens": self.kv_tokens,
            },
        }  # fmt: skip


def _has(llm: LLM, mode: str) -> bool:
    """Whether the checkpoint can write in a mode."""
    try:
        build(mode, llm.model.config, llm.cost)
    except InvalidInput:
        return False
    return True


def _parameters(mode: str, config: Any) -> dict[str, Any]:
    """The parameters of a mode as JSON."""
    return {
        name: {
            "help": item.metadata["help"], "default": getattr(config, name, None) or item.default,
            "choices": item.metadata["choices"], "low": item.metadata["low"],
            "high": None if item.metadata["high"] == float("inf") else item.metadata["high"],
        }
        for name, item in options(mode, config).items()
    }  # fmt: skip
