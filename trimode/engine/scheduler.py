"""Who runs in the next forward. Knows turns, rows and pages; not what the rows are for."""

import logging
from collections import deque
from collections.abc import Sequence

from trimode.engine.memory import Memory
from trimode.engine.request import Request
from trimode.spans import Span

log = logging.getLogger("trimode.engine")
Turn = tuple[Request, Span]


class Scheduler:
    """Requests that run, in the order of their turns, and those that wait, first come first served.

    Who has run goes to the end of the queue, so everybody waits a bounded number of forwards. Where pages run out, the
    youngest are preempted; the oldest runs in any case.
    """

    def __init__(self, memory: Memory, max_rows: int, max_running: int, isolates: bool) -> None:
        self.memory, self.max_rows, self.max_running, self.isolates = memory, max_rows, max_running, isolates
        self.running: deque[Request] = deque()
        self.waiting: deque[Request] = deque()

    def add(self, request: Request) -> None:
        """Let a request wait. Mutates."""
        self.waiting.append(request)

    def remove(self, request: Request) -> None:
        """Forget a request, wherever it is. Mutates."""
        for queue in (self.running, self.waiting):
            if request in queue:
                queue.remove(request)

    def preempt(self, request: Request) -> None:
        """Take the pages of a request that runs, and let it wait behind the others. Mutates."""
        self.running.remove(request)
        self.waiting.append(request)
        request.n_recomputed = max(request.n_recomputed, request.cache.length)
        self.memory.release(request)

    def turns(self) -> tuple[list[Turn], list[Request]]:
        """Whose spans run now, with their pages, and who cannot go on, which runs no more. Mutates."""
        failed: list[Request] = []
        load = min(len(self.running) + len(self.waiting), self.max_running)
        for request in (*self.running, *self.waiting):
            request.weigh(load)
        plans = {request.id: span for request in list(self.running) if (span := self._plan(request, failed))}
        self._let_in(plans, failed)
        while len(self.running) > 1 and self._lack(plans) > self.memory.pages.n_available:
            self.memory.trim(self.running)
            if self._lack(plans) > self.memory.pages.n_available:
                self.preempt(max(self.running, key=lambda request: request.id))
        turns = [(request, plans[request.id]) for request in list(self.running) if self._give(request, plans, failed)]
        for turn in turns:
            self.memory.give_ahead(*turn)
        return [turns[i] for i in admit([span.n_rows for _, span in turns], self.max_rows)], failed

    def turned(self, turns: Sequence[Turn]) -> None:
        """These have run: the others are before them now. Who has ended is forgotten. Mutates."""
        ran = {request.id for request, _ in turns}
        order = [r for r in self.running if r.id not in ran] + [request for request, _ in turns]
        self.running = deque(r for r in order if r.finish is None)

    def _let_in(self, plans: dict[int, Span], failed: list[Request]) -> None:
        """Move the waiting to the running while there are places and pages. Mutates."""
        while self.waiting and len(self.running) < self.max_running:
            request = self.waiting[0]
            self.memory.adopt(request)
            span = self._plan(request, failed)
            if span is None:
                continue
            needed = self._lack(plans) + self.memory.lacks(request, span)
            if self.running and needed > self.memory.pages.n_available:
                self.memory.release(request)
                return
            plans[request.id] = span
            self.running.append(self.waiting.popleft())

    def _plan(self, request: Request, failed: list[Request]) -> Span | None:
        try:
            return request.plan(self.max_rows)
        except Exception as error:
            self._fail(request, failed, error)
            return None

    def _give(self, request: Request, plans: dict[int, Span], failed: list[Request]) -> bool:
        try:
            self.memory.give(request, plans[request.id])
        except Exception as error:
            self._fail(request, failed, error)
        return request not in failed

    def _fail(self, request: Request, failed: list[Request], error: Exception) -> None:
        """This request alone cannot go on, or nothing can. Mutates."""
        if not self.isolates:
            raise error
        log.error("request %d cannot go on", request.id, exc_info=error)
        self.remove(request)
        failed.append(request)

    def _lack(self, plans: dict[int, Span]) -> int:
        """Pages that the running need beyond their own."""
        return sum(self.memory.lacks(request, plans[request.id]) for request in self.running)


def admit(rows: Sequence[int], max_rows: int) -> list[int]:
    """Indices of the plans that run now, in order of waiting; the first always runs, the others while rows are left."""
    admitted: list[int] = []
    left = max_rows
    for index, n in enumerate(rows):
        if n <= left or not admitted:
            admitted.append(index)
            left -= n
    return admitted
