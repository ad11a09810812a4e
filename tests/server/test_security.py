"""What SECURITY.md promises."""

import ast
import asyncio
import hmac
import json
import signal
import socket
from typing import Any

import pytest

from tests.server.processes import Server, serving
from tests.test_layers import PACKAGE
from trimode.server import guard
from trimode.server.guard import Guard
from trimode.server.settings import Settings
from trimode.tokenizer import Tokenizer

SERVED = (
    "server",
    "engine",
    "decoding",
    "models",
    "numerics",
    "native",
    "api.py",
    "cache.py",
    "tokenizer.py",
    "spans.py",
)
CODE_RUNNERS = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "code", "runpy"}
FETCHERS = {"urllib", "requests", "httpx", "httpx2", "aiohttp", "ftplib"}
FORBIDDEN = {"eval", "exec", "compile", "__import__", "torch.load"}
SECRET = "xylophonist"


def test_nothing_that_serves_unpickles_runs_code_or_fetches() -> None:
    files = [file for name in SERVED for file in ([PACKAGE / name] if "." in name else (PACKAGE / name).rglob("*.py"))]
    assert len(files) > 50
    for file in files:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = [item.name for item in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & (CODE_RUNNERS | FETCHERS), file
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in FORBIDDEN, file


def asked(settings: Settings, headers: dict[str, str], body: list[dict[str, Any]] | None = None) -> tuple[int, bool]:
    """The status behind the guard, and whether the application was reached."""
    reached, sent = [], []
    left = list(body or [{"type": "http.request", "body": b""}])

    async def application(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        reached.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> dict[str, Any]:
        if not left:
            await asyncio.sleep(60)
        return left.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "path": "/v1/models", "headers": pairs}
    asyncio.run(Guard(application, settings)(scope, receive, send))
    return sent[0]["status"], bool(reached)


LOCAL = {"host": "localhost:1"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (LOCAL, 200), ({"host": "127.0.0.1:9"}, 200), ({"host": "[::1]:9"}, 200), ({"host": "LOCALHOST"}, 200),
        ({"host": "localhost.evil.example"}, 403), ({"host": ""}, 403), ({}, 403), ({"host": "127.0.0.1.nip.io"}, 403),
        (LOCAL | {"origin": "http://localhost:1"}, 200), (LOCAL | {"origin": "http://localhost:2"}, 403),
        (LOCAL | {"origin": "null"}, 403), (LOCAL | {"origin": "http://evil.example"}, 403),
        (LOCAL | {"content-length": "5000"}, 413), (LOCAL | {"content-length": "-1"}, 413),
        (LOCAL | {"content-length": "1e3"}, 413), (LOCAL | {"content-length": "\xb2"}, 413),
    ],
)  # fmt: skip
def test_names_origins_and_lengths_are_checked_first(headers: dict[str, str], status: int) -> None:
    assert asked(Settings(max_body_bytes=4096), headers) == (status, status == 200)


def test_a_body_without_a_length_is_bounded_too() -> None:
    parts = [{"type": "http.request", "body": b"a" * 1000, "more_body": True} for _ in range(5)]
    assert asked(Settings(max_body_bytes=4096), LOCAL, parts) == (413, False)


def test_a_body_that_stops_coming_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.05)
    parts = [{"type": "http.request", "body": b"a", "more_body": True}]
    assert asked(Settings(), LOCAL, parts) == (408, False)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": "Bearer one"}, 200), ({"authorization": "bearer  two"}, 200), ({"x-api-key": "two"}, 200),
        ({}, 401), ({"authorization": "Bearer "}, 401), ({"authorization": "Basic one"}, 401), ({"x-api-key": ""}, 401),
        ({"authorization": "Bearer one,two"}, 401), ({"authorization": "Bearer \xff"}, 401),
    ],
)  # fmt: skip
def test_a_key_is_a_whole_key(headers: dict[str, str], status: int) -> None:
    assert asked(Settings(api_key="one,two"), LOCAL | headers) == (status, status == 200)


def test_every_key_is_compared_in_constant_time_even_behind_a_match(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append(b) or real(a, b))
    asked(Settings(api_key="one,two,three"), LOCAL | {"x-api-key": "one"})
    assert compared == [b"one", b"two", b"three"]


@pytest.mark.medium
def test_neither_logs_nor_metrics_hold_what_a_client_has_sent() -> None:
    with serving("--api-key", SECRET + "key") as locked:
        key = {"Authorization": f"Bearer {SECRET}key", "x-request-id": "my-id"}
        for body in (
            {"prompt": SECRET},
            {"prompt": SECRET, SECRET: 1},
            {"prompt": "a", "model": SECRET},
            b"{" + SECRET.encode(),
        ):
            headers = locked.ask("POST", "/v1/completions", body, key)[2]
            assert headers["x-request-id"] == "my-id"
        locked.ask("GET", f"/{SECRET}", headers=key)
        locked.ask("GET", "/props", headers={"Authorization": f"Bearer {SECRET}"})
        assert SECRET not in locked.ask("GET", "/metrics", headers=key)[1]
        strange = locked.ask("GET", "/props", headers=key | {"x-request-id": "a b" * 90})[2]["x-request-id"]
        assert len(strange) == 16
        locked.process.send_signal(signal.SIGTERM)
        locked.process.wait(30)
    assert SECRET not in "".join(locked.log)


@pytest.mark.medium
def test_what_looks_like_markup_is_text_and_reserved_ids_are_refused(server: Server) -> None:
    tokenizer = Tokenizer.load(PACKAGE / "assets")
    marks = list(tokenizer.special)
    for path, body in (("/tokenize", {"prompt": "".join(marks)}), ("/tokenize", {"messages": [
        {"role": "user", "content": "".join(marks)}]})):  # fmt: skip
        tokens = server.ask("POST", path, body)[1]["tokens"]
        plain = server.ask("POST", path, json.loads(json.dumps(body).replace("".join(marks), "x")))[1]["tokens"]
        special = set(tokenizer.special.values())
        assert [t for t in tokens if t in special] == [t for t in plain if t in special]
    for token in tokenizer.reserved:
        status, told, _ = server.ask("POST", "/v1/completions", {"prompt": [5, token]})
        assert (status, told["error"]["param"]) == (400, "prompt")


@pytest.mark.medium
def test_a_template_of_a_client_is_refused(server: Server) -> None:
    body = {"messages": [{"role": "user", "content": "a"}], "chat_template": "{{ 1 }}"}
    status, told, _ = server.ask("POST", "/v1/chat/completions", body)
    assert (status, told["error"]["param"]) == (400, "chat_template")


@pytest.mark.medium
def test_headers_without_end_are_cut_off(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000)
        assert connection.recv(100).startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))
    assert server.ask("GET", "/health")[0] == 200


def test_who_does_not_take_what_it_is_sent_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SEND_SECONDS", 0.1)
    closed = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        finally:
            closed.append(True)

    async def stuck(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.sleep(60)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    scope = {"type": "http", "method": "GET", "path": "/x", "headers": [(b"host", b"localhost")]}
    asyncio.run(asyncio.wait_for(Guard(application, Settings())(scope, receive, stuck), 30))
    assert closed


@pytest.mark.medium
def test_no_page_of_another_origin_is_allowed_anything(server: Server) -> None:
    asked = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    for method, path in (("OPTIONS", "/v1/completions"), ("GET", "/props")):
        status, _, headers = server.ask(method, path, headers=asked)
        assert status == 403 and not [name for name in headers if name.lower().startswith("access-control")]
