"""A stream that is silent says that it is alive, and whoever leaves it closes what it was made of."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from trimode.server.exchange import with_pings

PING = b": ping\n\n"


async def gathered(parts: AsyncGenerator[bytes], n: int) -> list[bytes]:
    """The first n parts; the rest is left."""
    stream, found = with_pings(parts, 0.05), list[bytes]()
    async for part in stream:
        found.append(part)
        if len(found) == n:
            break
    await stream.aclose()  # type: ignore[attr-defined]
    return found


def test_silence_is_filled_with_comments_and_nothing_is_lost() -> None:
    async def slow() -> AsyncGenerator[bytes]:
        yield b"a"
        await asyncio.sleep(0.12)
        yield b"b"
        yield b"c"

    found = asyncio.run(gathered(slow(), 99))
    assert [part for part in found if part != PING] == [b"a", b"b", b"c"]
    assert found.count(PING) >= 1 and found[-2:] == [b"b", b"c"]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_whoever_leaves_closes_the_stream_at_once(n: int) -> None:
    closed = []

    async def endless() -> AsyncGenerator[bytes]:
        try:
            yield b"a"
            await asyncio.sleep(60)
        finally:
            closed.append(True)

    assert len(asyncio.run(asyncio.wait_for(gathered(endless(), n), 30))) == n
    assert closed


def test_what_fails_within_a_stream_is_raised() -> None:
    async def failing() -> AsyncGenerator[bytes]:
        yield b"a"
        raise ValueError("why")

    with pytest.raises(ValueError, match="why"):
        asyncio.run(gathered(failing(), 9))
