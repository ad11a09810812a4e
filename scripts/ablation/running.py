"""Child processes side by side, each on one thread and a core of its own. Knows commands; no model and no table."""

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[2]


class Stopped(Exception):
    """Somebody asked the whole to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is to be done, one thing after the other, and said when it is done. Its children write to `log`."""

    name: str
    log: Path
    parts: Sequence[Callable[[], list[str] | None]]  # each gives a command, or None where nothing is left to do


class Crew:
    """Does works, `jobs` at a time. A work that fails ends the others after their current command."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self._children: set[subprocess.Popen[bytes]] = set()
        self._is_over, self._lock = threading.Event(), threading.Lock()
        self._failures: list[str] = []

    def do(self, works: Sequence[Work]) -> None:
        """All of them. Raises Stopped, or RuntimeError with what failed."""
        queue = deque(works)
        threads = [threading.Thread(target=self._serve, args=(queue, core)) for core in cores(self.jobs)]
        with asked_to_stop():
            try:
                for thread in threads:
                    thread.start()
                for thread in threads:
                    while thread.is_alive():
                        thread.join(0.2)  # so that a signal is seen
            except Stopped:
                self._end()
                for thread in threads:
                    if thread.is_alive():
                        thread.join()
                raise
        if self._failures:
            raise RuntimeError("\n".join(self._failures))

    def _serve(self, queue: deque[Work], core: int | None) -> None:
        if core is not None:
            os.sched_setaffinity(0, {core})  # of this thread, and so of the children it starts
        while not self._is_over.is_set():
            try:
                work = queue.popleft()
            except IndexError:
                return
            try:
                self._work(work)
            except Exception as error:
                self._failures.append(f"{work.name}: {error}")
                self._is_over.set()

    def _work(self, work: Work) -> None:
        for part in work.parts:
            command = None if self._is_over.is_set() else part()
            if command is not None and (code := self._run(command, work.log)) and not self._is_over.is_set():
                raise RuntimeError(f"{' '.join(command)} ended with {code}, see {work.log}")
        if not self._is_over.is_set():
            print(f"{work.name}: done", file=sys.stderr)

    def _run(self, command: list[str], log: Path) -> int:
        one_thread = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        with log.open("ab") as file:
            with self._lock:
                child = subprocess.Popen(command, stdout=file, stderr=file, cwd=ROOT, env=one_thread)
                self._children.add(child)
            try:
                if self._is_over.is_set():
                    child.terminate()
                return child.wait()
            finally:
                self._children.discard(child)

    def _end(self) -> None:
        """A training that is asked saves a checkpoint first."""
        self._is_over.set()
        with self._lock:
            for child in list(self._children):
                child.terminate()


def cores(jobs: int) -> list[int | None]:
    """A core for each of so many; None where the system cannot tell or there are too few."""
    if not hasattr(os, "sched_getaffinity"):
        return [None] * jobs
    mine = sorted(os.sched_getaffinity(0))
    return [mine[i] if jobs <= len(mine) else None for i in range(jobs)]


@contextmanager
def asked_to_stop() -> Iterator[None]:
    """Within it, SIGTERM and ctrl-C raise Stopped in the main thread."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
