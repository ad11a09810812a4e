"""SIGTERM and SIGINT as a wish that a loop reads when it suits it. Knows no loop."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any


@dataclass(slots=True)
class Interrupts:
    """The last signal that asked this process to stop, 0 for none."""

    signal: int = 0


@contextmanager
def watched() -> Iterator[Interrupts]:
    """Within, the first signal is only noted; the second acts as ever. Signals reach the main thread alone."""
    seen = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield seen
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, frame: FrameType | None) -> None:
        seen.signal = number
        signal.signal(number, before[number] or signal.SIG_DFL)

    for number in before:
        signal.signal(number, note)
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
