"""SIGTERM and SIGINT as a wish that a loop reads when it suits it. Knows no loop."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

SAME = (
    3.0  # seconds in which a second signal is the same wish: schedulers ask every process, torchrun hands it on again
)


@dataclass(slots=True)
class Interrupts:
    """The first signal that asked this process to stop, 0 for none."""

    signal: int = 0


@contextmanager
def watched() -> Iterator[Interrupts]:
    """Within, the first signal is only noted; one that comes later acts as ever. They reach the main thread alone."""
    seen, since = Interrupts(), 0.0
    if threading.current_thread() is not threading.main_thread():
        yield seen
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal since
        if not seen.signal:
            seen.signal, since = number, time.monotonic()
        elif time.monotonic() - since > SAME:
            signal.signal(number, before[number] or signal.SIG_DFL)
            signal.raise_signal(number)

    for number in before:
        signal.signal(number, note)
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
