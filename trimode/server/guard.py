"""What stands before every route: who may ask, from where, how large a request may be and how long it may take.

Whatever goes wrong behind it is answered here. Knows no route's body.
"""

import asyncio
import hmac
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trimode.server.refusals import Refused, error_body, refused
from trimode.server.settings import Settings

log = logging.getLogger("trimode.server")
OPEN = ("/", "/health", "/ready")  # no key is asked for
LOCAL = ("localhost", "127.0.0.1", "[::1]")
BODY_SECONDS = 30.0  # for a body to come whole
SEND_SECONDS = 60.0  # for a client to take what it was sent


class SlowReader(Exception):
    """A client does not take what it is sent."""


class Guard:
    """ASGI middleware. Refuses in the API's shape; gives every answer a request id, under which the log knows it."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.settings, self.keys = app, settings, settings.keys
        self._names = {*LOCAL, settings.host.lower(), f"[{settings.host.lower()}]"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, began, status = Headers(scope=scope), time.perf_counter(), 0
        request_id = _plain(headers.get("x-request-id")) or secrets.token_hex(8)

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await send(message)
            except TimeoutError:
                raise SlowReader from None

        try:
            await self._let_in(scope, headers, receive, named)
        except (ClientDisconnect, SlowReader):
            status = 499
        except Exception as error:
            if not isinstance(error, Refused):
                log.exception("request %s failed", request_id)
            if not status:
                await refuse(refused(error), named, scope["path"])
        took = 1e3 * (time.perf_counter() - began)
        known = getattr(scope.get("route"), "path", "-")  # a path that is none of ours may be anything
        log.info("%s %s %s %d in %.0f ms", request_id, scope["method"], known, status, took)

    async def _let_in(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        self._check_origin(headers)
        if scope["path"] not in OPEN:
            self._check_key(headers)
        self._check_length(headers)
        await self.app(scope, self._limited(receive), send)

    def _check_origin(self, headers: Headers) -> None:
        """A page of another site must not reach a server on this machine, by whatever name it calls it."""
        if not self.settings.is_local:
            return
        host = headers.get("host", "").lower()
        if _name(host) not in self._names:
            raise Refused(403, f"host {host!r:.100} is not this server, allowed are {', '.join(LOCAL)}")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host:
            raise Refused(403, "requests of pages from other origins are not answered")

    def _check_key(self, headers: Headers) -> None:
        """Every key is compared, in a time that does not tell how much of it was right."""
        if not self.keys:
            return
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        given = bearer.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")
        matches = [hmac.compare_digest(given.encode(), key.encode()) for key in self.keys]
        if not any(matches):
            raise Refused(401, "a valid key is needed: Authorization: Bearer KEY", code="invalid_api_key")

    def _check_length(self, headers: Headers) -> None:
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > self.settings.max_body_bytes:
            raise self._too_large()

    def _too_large(self) -> Refused:
        return Refused(413, f"the body is too large, allowed are {self.settings.max_body_bytes} bytes")

    def _limited(self, receive: Receive) -> Callable[[], Awaitable[Message]]:
        """The same for a body that does not tell its length, or takes its time."""
        seen, is_whole, end = 0, False, asyncio.get_running_loop().time() + BODY_SECONDS

        async def limited() -> Message:
            nonlocal seen, is_whole
            try:
                async with asyncio.timeout_at(None if is_whole else end):
                    message = await receive()
            except TimeoutError:
                raise Refused(408, f"the body did not come within {BODY_SECONDS:.0f} s") from None
            seen += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if seen > self.settings.max_body_bytes:
                raise self._too_large()
            return message

        return limited


async def refuse(error: Refused, send: Send, path: str) -> None:
    """A whole answer that says why there is none."""
    body = orjson.dumps(error_body(error, path))
    headers: Sequence[tuple[str, str]] = (("content-type", "application/json"), ("content-length", str(len(body))),
                                          *error.headers.items())  # fmt: skip
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def _name(host: str) -> str:
    """A Host header without its port."""
    return host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]


def _plain(text: str | None) -> str:
    """A client's own id, where it is short and harmless in a log."""
    return text if text and len(text) <= 64 and text.isascii() and text.replace("-", "").isalnum() else ""
