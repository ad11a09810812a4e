"""One thread that owns the engine, and the way in and out for asyncio. Knows no HTTP and no JSON.

Whatever touches the engine is a call that the thread makes between two steps, so nothing is locked while it computes.
"""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from functools import partial

from trimode.engine.engine import Engine
from trimode.engine.events import Event
from trimode.engine.request import Request
from trimode.spans import FinishReason

log = logging.getLogger("trimode.server")
Watcher = Callable[[Request, Event], None]


class Ticket:
    """One request at work, as its client sees it: its events in order, on the client's loop."""

    def __init__(self, request: Request, worker: "Worker", loop: asyncio.AbstractEventLoop) -> None:
        self.request = request
        self._worker, self._loop = worker, loop
        self._events: asyncio.Queue[Event] = asyncio.Queue()

    def give(self, event: Event) -> None:
        """Hand over an event, from the engine's thread."""
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except RuntimeError:  # the loop is closed: nobody is there to read it
            log.debug("an event of request %s came after its client's loop was closed", self.request.id)

    async def events(self) -> AsyncIterator[Event]:
        """All events to the last, which has a finish reason. Whoever leaves early ends the request."""
        try:
            while True:
                event = await self._events.get()
                yield event
                if event.finish is not None:
                    return
        finally:
            self.leave()

    def leave(self) -> None:
        """Nobody waits for the rest: its cache is free before the next forward."""
        if self.request.finish is None:
            self._worker.forget(self)


class Worker:
    """Steps the engine while there is work, and sleeps while there is none."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._watchers: list[Watcher] = []
        self._calls: deque[Callable[[], None]] = deque()
        self._tickets: dict[int, Ticket] = {}
        self._n_asked = 0  # requests that are to be made
        self._wake = threading.Condition()
        self._is_stopping = False
        self.stepped_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="trimode-engine", daemon=True)

    def watch(self, watcher: Watcher) -> None:
        """Tell somebody every event, on the engine's thread. For before the start."""
        self._watchers.append(watcher)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End every request and the thread."""
        with self._wake:
            self._is_stopping = True
            self._wake.notify()
        self._thread.join(timeout=30)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def stalled_for(self) -> float:
        """Seconds since the last sign of life, while there is work; else 0. For ever, where the thread has ended."""
        if not self.is_alive:
            return math.inf
        return time.monotonic() - self.stepped_at if self._calls or not self.engine.is_idle else 0.0

    @property
    def n_open(self) -> int:
        """Requests that run, wait, or are about to be made."""
        with self._wake:
            return len(self._tickets) + self._n_asked

    async def submit(self, makes: Sequence[Callable[[Engine], Request]]) -> list[Ticket]:
        """Let the engine's thread make requests, all or none. Raises what the first that fails raises."""
        loop = asyncio.get_running_loop()
        done: Future[list[Ticket]] = Future()

        def act() -> None:
            tickets: list[Ticket] = []
            try:
                for make in makes:
                    tickets.append(Ticket(make(self.engine), self, loop))
            except Exception as error:
                for ticket in tickets:
                    self.engine.abort(ticket.request)
                tickets.clear()
                failure: Exception | None = error
            else:
                failure = None
            with self._wake:
                self._tickets |= {ticket.request.id: ticket for ticket in tickets}
                self._n_asked -= len(makes)
            if failure is None:
                done.set_result(tickets)
            else:
                done.set_exception(failure)

        with self._wake:
            self._n_asked += len(makes)
        self._do(act)
        try:
            return await asyncio.shield(asyncio.wrap_future(done))
        except asyncio.CancelledError:  # the client left before its requests were made
            done.add_done_callback(_leave)
            raise

    def end_all(self) -> None:
        """End every request with an error, as nobody can wait for it any more."""
        self._do(self._fail_all)

    def forget(self, ticket: Ticket) -> None:
        """End a request whose client is gone."""
        self._do(lambda: self._abort(ticket))

    def _do(self, act: Callable[[], None]) -> None:
        with self._wake:
            if not self._calls and self.engine.is_idle:
                self.stepped_at = time.monotonic()  # it sleeps: what stands still is counted from now on
            self._calls.append(act)
            self._wake.notify()

    def _abort(self, ticket: Ticket, finish: FinishReason = "cancelled") -> None:
        if ticket.request.finish is None:
            self._tell(self.engine.abort(ticket.request, finish))

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._calls and self.engine.is_idle and not self._is_stopping:
                    self._wake.wait()
                self.stepped_at = time.monotonic()
                calls = [self._calls.popleft() for _ in range(len(self._calls))]
                is_stopping = self._is_stopping
            for call in calls:
                self._make(call)
            if is_stopping:
                for ticket in list(self._tickets.values()):
                    self._abort(ticket)
                return
            self._step()

    def _make(self, call: Callable[[], None]) -> None:
        """A call of others; one that fails must not take the thread along."""
        try:
            call()
        except Exception:
            log.exception("a call on the engine's thread failed")

    def _step(self) -> None:
        """One forward. The engine ends requests whose own forwards fail; where it fails itself, all that run end."""
        try:
            events = self.engine.step()
        except Exception:
            log.exception("the engine failed, every request ends")
            self._fail_all()
            return
        for event in events:
            self._tell(event)

    def _fail_all(self) -> None:
        for ticket in list(self._tickets.values()):
            self._make(partial(self._abort, ticket, "error"))

    def _tell(self, event: Event) -> None:
        ticket = self._tickets[event.request]
        if event.finish is not None:
            with self._wake:
                del self._tickets[event.request]
        for watcher in self._watchers:
            self._make(partial(watcher, ticket.request, event))
        ticket.give(event)


def _leave(done: "Future[list[Ticket]]") -> None:
    """Nobody waits for these tickets."""
    for ticket in () if done.exception() else done.result():
        ticket.leave()
