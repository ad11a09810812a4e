"""From settings to a listening server and to its end. Signals, sockets and the log; no route."""

import asyncio
import logging
import math
import socket
import sys
from collections.abc import Callable
from types import FrameType

import uvicorn

from trimode.api import load
from trimode.errors import InvalidInput
from trimode.server.app import build_app
from trimode.server.connections import Connection
from trimode.server.service import Service
from trimode.server.settings import Settings

HEADER_BYTES = 16 << 10
FAREWELL = 2  # seconds for last words after `drain_seconds`
IDLE_SECONDS = 65  # a connection that is kept open, a bit longer than proxies keep theirs


class _Server(uvicorn.Server):
    """Ends as it should on any first signal, at once on a second, and is not killed by either afterwards."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Who is still waited for when the time is over is told so, before connections are cut."""
        clock = asyncio.get_running_loop().call_later(self._service.settings.drain_seconds, self._service.close)
        try:
            await super().shutdown(sockets)
        finally:
            clock.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True


def serve(settings: Settings, say: Callable[[str], None]) -> None:
    """Load the model, listen, and answer until SIGTERM or SIGINT.

    The first one closes the door and lets accepted requests end within `drain_seconds`, a second one ends at once.
    Raises TrimodeError for a model that cannot be loaded or an address that cannot be had.
    """
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    llm = load(settings.model, dtype=settings.dtype, device=settings.device, backend=settings.backend)
    service = Service(llm, settings)
    config = uvicorn.Config(
        build_app(service), host=settings.host, port=settings.port, http=Connection, ws="none", loop="asyncio",
        log_config=None, access_log=False, server_header=False, date_header=True, lifespan="off",
        h11_max_incomplete_event_size=HEADER_BYTES, timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=math.ceil(settings.drain_seconds) + FAREWELL,
    )  # fmt: skip
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    door = listening(settings)
    service.worker.start()
    say(greeting(service, settings.host, door.getsockname()[1]))
    try:
        asyncio.run(_Server(config, service).serve(sockets=[door]))
    finally:
        service.worker.stop()


def listening(settings: Settings) -> socket.socket:
    """A socket at the address, with a port of its own where 0 is asked for."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((settings.host, settings.port))
        made.listen(1024)  # who comes before the first answer is possible waits
    except OSError as error:
        made.close()
        raise InvalidInput(f"{settings.host}:{settings.port} cannot be listened on ({error.strerror})") from None
    return made


def greeting(service: Service, host: str, port: int) -> str:
    """Address, modes and a line to try."""
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    key = ' -H "Authorization: Bearer $KEY"' if service.settings.keys else ""
    return (
        f"{service.name} at {url}\n"
        f"modes: {', '.join(service.modes)} (without generation_mode: {service.mode})\n"
        f"curl {url}/v1/chat/completions{key} -H 'Content-Type: application/json' "
        """-d '{"messages": [{"role": "user", "content": "Sort this list: 3, 1, 2"}]}'"""
    )
