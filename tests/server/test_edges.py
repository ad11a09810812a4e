"""What clients send at the edges of what is allowed, and what becomes of who is slow, late or in the way."""

import asyncio
import http.client
import json
import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from tests.fakes import byte_tokenizer, lively_model
from tests.server.processes import Server, serving
from trimode.api import LLM
from trimode.decoding import MODES, options
from trimode.errors import InvalidInput
from trimode.server import connections
from trimode.server.connections import Connection
from trimode.server.service import Service
from trimode.server.settings import Settings, gather

pytestmark = pytest.mark.medium
SORT = "Sort the list in ascending order.\n4, 3, 9\nAnswer:\n"
LONG = {"prompt": SORT, "max_tokens": 1500, "min_tokens": 1500, "generation_mode": "ar"}


def extremes(item: Any) -> Iterator[Any]:
    """Values at and beyond the ends of what a parameter declares."""
    facts = item.metadata
    if facts["choices"] is not None:
        yield from (*facts["choices"], "sideways")
        return
    for end in (facts["low"], facts["high"], 2**31 - 1, 2**63, 1e308, -1, "none"):
        if end is not None and end != float("inf"):
            yield end


@pytest.mark.parametrize("mode", MODES)
def test_no_value_of_any_parameter_makes_the_server_fail(server: Server, mode: str) -> None:
    for name, item in options(mode).items():
        for value in extremes(item):
            body = {"prompt": SORT, "max_tokens": 6, "generation_mode": mode, name: value}
            status, answer, _ = server.ask("POST", "/v1/completions", body)
            assert status == 200 or (status, answer["error"]["param"]) == (400, name), (name, value, answer)


def test_a_choice_that_only_another_mode_has_is_judged_by_the_mode(server: Server) -> None:
    body = {"prompt": SORT, "max_tokens": 6, "anchor": "committed"}
    assert server.ask("POST", "/v1/completions", body | {"generation_mode": "self_speculation"})[0] == 200
    assert server.ask("POST", "/v1/completions", body | {"generation_mode": "diffusion"})[0] == 400


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": ["a"] * 4096, "n": 4096}, "n"), ({"prompt": ["a"] * 4097}, "prompt"),
        ({"prompt": "a", "logit_bias": {"9" * 5000: 1.0}}, "logit_bias"),
        ({"prompt": "a", "max_tokens": 1, "max_completion_tokens": 2}, None),
        ({"prompt": "a", "stream_options": {"bogus": 1}, "stream": True}, "stream_options"),
    ],
)  # fmt: skip
def test_what_asks_for_too_much_or_contradicts_itself_is_refused_at_once(
    server: Server, body: dict[str, Any], param: str | None
) -> None:
    path = "/v1/completions"
    if "max_completion_tokens" in body:
        path, param = "/v1/chat/completions", "max_completion_tokens"
        body = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1, "max_completion_tokens": 2}
    status, answer, _ = server.ask("POST", path, body)
    assert (status, answer["error"]["param"]) == (400, param)


def test_a_text_of_the_wrong_kind_is_told_what_is_expected(server: Server) -> None:
    for body in ({"prompt": 3}, {"prompt": [1.5] * 20_000}, {"prompt": [["a"]]}):
        status, answer, _ = server.ask("POST", "/v1/completions", body)
        assert status == 400
        assert answer["error"]["message"] == "prompt: a text, token ids, or a list of either is expected"


def test_errors_have_the_shape_of_their_api_and_say_which_methods_there_are(server: Server) -> None:
    status, answer, _ = server.ask("POST", "/v1/messages", {"max_tokens": 1, "messages": []})
    assert (status, answer["type"], answer["error"]["type"]) == (400, "error", "invalid_request_error")
    status, answer, headers = server.ask("GET", "/v1/completions")
    assert (status, headers["allow"]) == (405, "POST") and answer["error"]["message"]
    with serving("--api-key", "secret") as locked:
        status, answer, _ = locked.ask("POST", "/v1/messages", {})
        assert (status, answer["error"]["type"]) == (401, "authentication_error")


def test_usage_comes_with_every_chunk_where_it_is_asked_for(server: Server) -> None:
    body = {"prompt": SORT, "max_tokens": 9, "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True}}  # fmt: skip
    _, text, _ = server.ask("POST", "/v1/completions", body)
    chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts) and counts[0] > 0 and counts[-1] == 9


def test_what_is_known_of_a_prompt_is_told_and_kept_apart_by_its_salt(server: Server) -> None:
    prompt = "Known beginnings are shared by all that follow them. " * 9

    def cached(**more: Any) -> int:
        answer = server.ask("POST", "/v1/completions", {"prompt": prompt, "max_tokens": 2} | more)[1]
        return int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])

    assert (cached(), cached() > 32, cached(cache_salt="mine"), cached(cache_salt="mine") > 32) == (0, True, 0, True)
    assert server.number("vllm:prefix_cache_hits_total") > 64
    with serving("--no-prefix-reuse") as other:
        for _ in range(2):
            answer = other.ask("POST", "/v1/completions", {"prompt": prompt, "max_tokens": 2})[1]
            assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


def test_a_lenient_server_names_what_it_passed_over_in_a_header_that_holds() -> None:
    with serving("--lenient") as lenient:
        body: dict[str, Any] = {"prompt": SORT, "max_tokens": 3}
        for name in ("ключ", "a\r\nset-cookie: x", "tempreature"):
            status, _, headers = lenient.ask("POST", "/v1/completions", body | {name: 1})
            assert status == 200 and "set-cookie" not in headers
            assert ascii(name) in headers["x-trimode-warning"]
        many = {f"field {n}": 1 for n in range(3000)}
        status, _, headers = lenient.ask("POST", "/v1/completions", body | many)
        assert status == 200 and len(headers["x-trimode-warning"]) < 500


def test_a_request_whose_time_is_over_gives_what_is_there() -> None:
    with serving("--request-seconds", "1", "--max-running-requests", "1") as hurried:
        status, answer, _ = hurried.ask("POST", "/v1/completions", LONG)
        (choice,) = answer["choices"]
        assert (status, choice["finish_reason"], choice["stop_reason"]) == (200, "length", "timeout")
        assert 0 < answer["usage"]["completion_tokens"] < 1500 and choice["text"]
        status, answer, headers = hurried.ask("POST", "/v1/completions", LONG | {"n": 2})
        assert (status, headers["retry-after"]) == (503, "1")  # the second has not begun


def test_who_is_still_waited_for_when_the_server_closes_is_told() -> None:
    with serving("--drain-seconds", "1") as closing_down:
        with closing(http.client.HTTPConnection("127.0.0.1", closing_down.port, timeout=60)) as connection:
            connection.request("POST", "/v1/completions", json.dumps(LONG | {"stream": True}))
            answer = connection.getresponse()
            answer.readline()
            closing_down.process.send_signal(signal.SIGTERM)
            last = [line for line in answer.read().decode().splitlines() if line.startswith("data: ")][-1]
        assert json.loads(last[6:])["error"]["message"] == "the server closes"
        assert closing_down.process.wait(30) == 0


def test_more_answers_than_ever_fit_are_refused_and_not_put_off() -> None:
    with serving("--max-running-requests", "1", "--max-queued-requests", "1") as small:
        status, answer, _ = small.ask("POST", "/v1/completions", {"prompt": SORT, "n": 3})
        assert (status, answer["error"]["param"]) == (400, "n")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(decoding={"confidence_threshold": -7}), "confidence_threshold is -7"),
        (dict(decoding={"block_size": 0}), "block_size is 0"),
        (dict(generation_mode="gan"), "generation_mode is 'gan'"),
    ],
)
def test_a_setting_that_every_request_would_be_refused_for_is_refused_at_the_start(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        Service(LLM(lively_model(), byte_tokenizer()), Settings(**settings))


def test_a_mode_that_the_checkpoint_does_not_have_is_refused_at_the_start() -> None:
    llm = LLM(lively_model(mask_token_id=None), byte_tokenizer())
    with pytest.raises(InvalidInput, match="allowed here are ar, prompt_lookup"):
        Service(llm, Settings(generation_mode="diffusion"))


def test_a_file_of_settings_speaks_other_peoples_words_and_is_refused_in_ours(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('[decoding]\nplacement = "quad"\n')
    assert gather({}, {}, file).decoding == {"placement": "quadratic"}
    file.write_text("decoding = 3\n")
    with pytest.raises(InvalidInput, match="decoding is 3, allowed is a table"):
        gather({}, {}, file)


def test_keys_are_read_once_and_never_shown(tmp_path: Path) -> None:
    pipe = tmp_path / "keys"
    os.mkfifo(pipe)
    if os.fork() == 0:
        pipe.write_text("secret\n")
        os._exit(0)
    settings = Settings(api_key="other", api_key_file=str(pipe))
    assert settings.keys == ("other", "secret") == settings.keys
    assert "secret" not in repr(settings) and "other" not in repr(settings)


def test_a_head_that_does_not_come_ends_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def talk() -> None:
        config = uvicorn.Config(app, port=0, http=Connection, lifespan="off", log_config=None)
        config.load()
        state = uvicorn.Server(config).server_state
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(config, state, {}), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        for said in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"GET / HTTP/1.1\r\nhost: x\r\n\r\nGET /"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(said)
            if b"\r\n\r\n" in said:
                assert b"200" in await reader.readline()
            if not said.endswith(b"\r\n\r\n"):
                await asyncio.wait_for(reader.read(), 20)  # to the end
            writer.close()
        server.close()

    asyncio.run(talk())
