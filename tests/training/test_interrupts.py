"""The first signal is a wish, its echo is the same wish, and a later one acts as it always does."""

import signal
import time
from collections.abc import Iterator

import pytest

from trimode.training.interrupts import SAME, watched


@pytest.fixture
def acted() -> Iterator[list[int]]:
    """Signals that did what they do without anybody watching."""
    numbers: list[int] = []
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    for each in before:
        signal.signal(each, lambda number, frame: numbers.append(number))
    yield numbers
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.mark.parametrize("echo", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_and_its_echo_are_noted_once(acted: list[int], echo: signal.Signals) -> None:
    with watched() as seen:
        assert seen.signal == 0
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(echo)  # as torchrun sends one more to a process that its scheduler has asked already
        assert seen.signal == signal.SIGTERM
    assert acted == []


def test_a_later_signal_acts_as_ever(acted: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    with watched():
        signal.raise_signal(signal.SIGTERM)
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 2 * SAME)
        signal.raise_signal(signal.SIGINT)
    assert acted == [signal.SIGINT]


def test_afterwards_nobody_watches(acted: list[int]) -> None:
    with watched():
        pass
    signal.raise_signal(signal.SIGTERM)
    assert acted == [signal.SIGTERM]
