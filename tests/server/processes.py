"""A real server process for tests, and ways to ask it."""

import http.client
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import openai


@dataclass(frozen=True)
class Server:
    """A running server and how to ask it."""

    port: int
    process: subprocess.Popen[str]
    log: list[str] = field(default_factory=list)  # what it has said, whole once it has ended

    def client(self, **options: Any) -> "openai.OpenAI":
        """To be closed by who asks."""
        import openai

        return openai.OpenAI(
            base_url=f"http://127.0.0.1:{self.port}/v1", max_retries=0, timeout=60, **{"api_key": "none"} | options
        )

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, http.client.HTTPMessage]:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request(method, path, data, headers or {})
            answer = connection.getresponse()
            text = answer.read().decode()
        is_json = "json" in (answer.headers["content-type"] or "")
        return answer.status, json.loads(text) if is_json else text, answer.headers

    def number(self, name: str) -> float:
        """A line of /metrics, its labels but the model's as they stand there."""
        base, _, labels = name.partition("{")
        model = 'model_name="trimode"' + ("," + labels if labels else "}")
        text = self.ask("GET", "/metrics")[1]
        found = re.search(rf"^{re.escape(base + '{' + model)} (.*)$", text, re.MULTILINE)
        assert found
        return float(found[1])


@contextmanager
def serving(*flags: str) -> Iterator[Server]:
    process = subprocess.Popen(
        [sys.executable, "-m", "trimode", "serve", "--port", "0", "--backend", "torch", *flags],
        stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stderr
    reader = None
    try:
        for line in process.stderr:
            if found := re.search(r"at http://127\.0\.0\.1:(\d+)", line):
                server = Server(int(found[1]), process)
                reader = threading.Thread(target=server.log.extend, args=(process.stderr,))
                reader.start()
                yield server
                return
        raise AssertionError("the server has not said where it is")
    finally:
        process.kill()
        process.wait()
        if reader is not None:
            reader.join()
        process.stderr.close()
