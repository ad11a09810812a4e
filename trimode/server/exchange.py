"""Small things between a route and HTTP: a body as JSON, JSON as an answer, a client that leaves."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import Any, TypeVar

import orjson
from fastapi import Request
from starlette.responses import Response

from trimode.server.refusals import Refused

T = TypeVar("T")


async def document(request: Request) -> Any:
    """The body as JSON; NaN, infinity and broken text are none."""
    try:
        return orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"the body is not JSON ({error})") from None


def answered(value: Any, headers: dict[str, str] | None = None, status: int = 200) -> Response:
    """A value as JSON."""
    return Response(orjson.dumps(value), status, headers, media_type="application/json")


async def with_pings(parts: AsyncGenerator[bytes], seconds: float) -> AsyncIterator[bytes]:
    """The parts of a stream, and after each silence of so many seconds a comment, lest somebody thinks it dead."""
    upcoming = asyncio.ensure_future(anext(parts))
    try:
        while True:
            await asyncio.wait((upcoming,), timeout=seconds)
            if not upcoming.done():
                yield b": ping\n\n"
                continue
            try:
                yield upcoming.result()
            except StopAsyncIteration:
                return
            upcoming = asyncio.ensure_future(anext(parts))
    finally:
        upcoming.cancel()
        with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
            await upcoming
        await parts.aclose()


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """The result, or None where the client left first; then the work is cancelled."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    result, left = asyncio.create_task(work), asyncio.create_task(gone())
    try:
        await asyncio.wait((result, left), return_when=asyncio.FIRST_COMPLETED)
        return result.result() if result.done() else None
    finally:
        left.cancel()
        result.cancel()
