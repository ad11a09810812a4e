"""A real server process, asked by real clients and by hand.

The clients are imported where they are used: each takes a second, and every run of any tests collects this file.
"""

import http.client
import json
import signal
import socket
import threading
import time
from contextlib import closing
from typing import Any

import pytest

from tests.server.processes import Server, serving
from trimode.api import LLM
from trimode.decoding import MODES

pytestmark = pytest.mark.medium
SORT = "Sort the list in ascending order.\n4, 3, 9\nAnswer:\n"
TURNS: Any = [{"role": "user", "content": "Reverse the list:\n4, 3, 9"}]


@pytest.mark.parametrize("mode", MODES)
def test_http_gives_the_texts_of_python_whatever_shares_the_server(server: Server, llm: LLM, mode: str) -> None:
    options: dict[str, Any] = {"temperature": 0.7, "seed": 3, "max_tokens": 24}
    found: dict[str, Any] = {}

    def ask(name: str, other: str) -> None:
        with server.client() as client:
            found[name] = client.completions.create(
                model="trimode", prompt=SORT, extra_body={"generation_mode": other}, **options
            )

    crowd = [threading.Thread(target=ask, args=(other, other)) for other in MODES]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    mine = llm.generate(SORT, mode=mode, **options)
    answer = found[mode]
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (mine.text, mine.finish_reason)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (mine.prompt_tokens, mine.completion_tokens)
    assert mode == "auto" or answer.usage.forwards == mine.forwards  # whose drafts follow the load
    assert answer.usage.generation_mode == mode


def test_a_stream_is_the_whole_answer_in_pieces(server: Server, llm: LLM) -> None:
    with server.client() as client:
        chunks = list(client.chat.completions.create(
            model="trimode", messages=TURNS, max_tokens=40, stream=True, stream_options={"include_usage": True}
        ))  # fmt: skip
    mine = llm.chat(TURNS, max_tokens=40)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == mine.text
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == mine.finish_reason
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == mine.completion_tokens
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


def test_several_prompts_have_several_choices_each_in_order(server: Server, llm: LLM) -> None:
    ids = llm.tokenizer.encode(SORT)
    options: dict[str, Any] = {"model": "trimode", "n": 2, "max_tokens": 6, "temperature": 1.0, "seed": 1}
    with server.client() as client:
        answer = client.completions.create(prompt=[SORT, "x"], echo=True, **options)
        same = client.completions.create(prompt=[ids, [ids[0]]], **options)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert [choice.text.startswith(SORT) for choice in answer.choices] == [True, True, False, False]
    assert [SORT + choice.text for choice in same.choices[:2]] == [choice.text for choice in answer.choices[:2]]
    assert answer.choices[2].text != answer.choices[3].text
    assert same.usage is not None and same.usage.prompt_tokens == len(ids) + 1


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"prompt": "a", "model": "gpt-4"}, 404, "model"), ({"prompt": "a", "suffix": "b"}, 400, "suffix"),
        ({"prompt": "a", "temperature": "hot"}, 400, "temperature"), ({"prompt": ""}, 400, "prompt"),
        ({"prompt": [10**6]}, 400, "prompt"), ({"prompt": "a", "generation_mode": "gan"}, 400, "generation_mode"),
        ({"prompt": "a", "generation_mode": "ar", "block_size": 8}, 400, "block_size"),
        ({"prompt": "a " * 5000}, 400, "prompt"), ({"prompt": ["a"] * 17}, 400, "n"), ({}, 400, "prompt"),
        (b"{", 400, None), (b"\xff", 400, None), (b'{"prompt": NaN}', 400, None), (b"[" * 10_000, 400, None),
        ({"prompt": "a", "min_tokens": 9, "max_tokens": 3}, 400, "min_tokens"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused_in_openais_shape(
    server: Server, body: Any, status: int, param: str | None
) -> None:
    found, told, _ = server.ask("POST", "/v1/completions", body)
    assert (found, told["error"]["param"]) == (status, param)
    assert set(told["error"]) == {"message", "type", "param", "code"} and told["error"]["message"]


def test_the_client_raises_its_own_errors(server: Server) -> None:
    import openai

    with server.client() as client:
        with pytest.raises(openai.BadRequestError, match="tools"):
            client.chat.completions.create(
                model="trimode", messages=TURNS, tools=[{"type": "function", "function": {"name": "look"}}]
            )
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("gpt-4")
        assert [model.id for model in client.models.list()] == ["trimode"]


def test_tokens_go_there_and_back(server: Server, llm: LLM) -> None:
    tokens = server.ask("POST", "/tokenize", {"prompt": "a <|im_end|> b"})[1]["tokens"]
    assert tokens == llm.tokenizer.encode("a <|im_end|> b")
    assert server.ask("POST", "/detokenize", {"tokens": tokens})[1] == {"prompt": "a <|im_end|> b"}
    assert server.ask("POST", "/tokenize", {"messages": TURNS})[1]["tokens"] == llm.chat_prompt(TURNS)
    assert server.ask("POST", "/tokenize", {})[0] == 400


def test_every_mode_tells_its_parameters(server: Server) -> None:
    status, told, _ = server.ask("GET", "/props")
    assert status == 200 and set(told["modes"]) == set(MODES)
    assert told["modes"]["diffusion"]["confidence_threshold"]["default"] == 0.9


def test_pages_of_others_and_other_names_are_turned_away(server: Server) -> None:
    assert server.ask("GET", "/props", headers={"Host": "evil.example"})[0] == 403
    assert server.ask("GET", "/props", headers={"Origin": "http://evil.example"})[0] == 403
    own = f"localhost:{server.port}"
    assert server.ask("GET", "/props", headers={"Host": own, "Origin": f"http://{own}"})[0] == 200


def test_a_body_that_is_too_large_is_refused_before_it_is_read(server: Server) -> None:
    status, told, _ = server.ask("POST", "/v1/completions", None, {"Content-Length": str(10**9)})
    assert (status, told["error"]["type"]) == (413, "invalid_request_error")


def test_clients_that_leave_within_a_stream_leave_nothing_behind(server: Server) -> None:
    body = json.dumps({"prompt": SORT, "max_tokens": 1500, "stream": True, "min_tokens": 1500}).encode()
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            assert connection.recv(64).startswith(b"HTTP/1.1 200")
    for _ in range(200):
        if server.number("vllm:num_requests_running") == 0:
            return
        time.sleep(0.05)
    raise AssertionError("requests of clients that are gone still run")


def test_a_queue_that_is_full_says_when_to_come_back() -> None:
    with serving("--max-running-requests", "1", "--max-queued-requests", "1") as small:
        statuses: list[int] = []

        def ask() -> None:
            status, _, headers = small.ask(
                "POST", "/v1/completions", {"prompt": SORT, "max_tokens": 400, "min_tokens": 400}
            )
            statuses.append(status)
            assert status == 200 or headers["retry-after"] == "1"

        crowd = [threading.Thread(target=ask) for _ in range(12)]
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join()
        assert set(statuses) == {200, 429}


def test_a_key_opens_all_but_health_and_sigterm_lets_accepted_requests_end() -> None:
    import openai

    with serving("--api-key", "secret,other") as locked:
        assert locked.ask("GET", "/health")[0] == locked.ask("GET", "/ready")[0] == 200
        for path in ("/metrics", "/props", "/v1/models", "/version", "/openapi.json", "/nowhere"):
            assert locked.ask("GET", path)[0] == 401
        assert locked.ask("GET", "/props", headers={"Authorization": "Bearer secre"})[0] == 401
        assert locked.ask("GET", "/props", headers={"x-api-key": "other"})[0] == 200
        with locked.client() as client, pytest.raises(openai.AuthenticationError):
            client.models.list()
        with locked.client(api_key="secret") as client:
            stream = client.completions.create(
                model="trimode", prompt=SORT, max_tokens=300, stream=True, extra_body={"min_tokens": 300}
            )
            first = next(iter(stream))
            locked.process.send_signal(signal.SIGTERM)
            rest = list(stream)
        assert first.choices[0].text and rest[-1].choices[0].finish_reason == "length"
        assert locked.process.wait(30) == 0


def test_a_second_sigterm_ends_what_still_runs() -> None:
    body = {"prompt": SORT, "max_tokens": 1500, "min_tokens": 1500}
    with serving() as busy, closing(http.client.HTTPConnection("127.0.0.1", busy.port, timeout=60)) as connection:
        connection.request("POST", "/v1/completions", json.dumps(body))
        while busy.number("vllm:num_requests_running") < 1:
            time.sleep(0.02)
        busy.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert busy.process.poll() is None
        busy.process.send_signal(signal.SIGTERM)
        assert busy.process.wait(30) == 0


def test_anthropics_client_gets_its_messages_and_its_streams(server: Server, llm: LLM) -> None:
    import anthropic

    asked: dict[str, Any] = {"model": "trimode", "max_tokens": 30, "messages": TURNS}
    with anthropic.Anthropic(base_url=f"http://127.0.0.1:{server.port}", api_key="none", max_retries=0) as client:
        whole = client.messages.create(**asked, extra_body={"generation_mode": "ar"})
        cut = client.messages.create(**asked, stop_sequences=["4"])
        with client.messages.stream(**asked) as stream:
            pieces = "".join(stream.text_stream)
            final = stream.get_final_message()
        with pytest.raises(anthropic.BadRequestError, match="tools"):
            client.messages.create(**asked, tools=[{"name": "a", "input_schema": {}}])
    mine = llm.chat(TURNS, max_tokens=30)
    assert whole.content[0].text == pieces == final.content[0].text == mine.text
    assert (whole.usage.input_tokens, whole.usage.output_tokens) == (mine.prompt_tokens, mine.completion_tokens)
    assert whole.stop_reason == final.stop_reason == {"stop": "end_turn", "length": "max_tokens"}[mine.finish_reason]
    assert (cut.stop_reason, cut.stop_sequence, cut.content[0].text) == ("stop_sequence", "4", mine.text.split("4")[0])


def test_responses_come_whole_and_as_events_and_go_back_as_turns(server: Server, llm: LLM) -> None:
    import openai

    asked: dict[str, Any] = {"model": "trimode", "max_output_tokens": 30}
    with server.client() as client:
        whole = client.responses.create(**asked, input=TURNS[0]["content"], store=False)
        with client.responses.stream(**asked, input=TURNS) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_response()
        turns: Any = [*TURNS, *(item.model_dump(exclude_none=True) for item in whole.output), *TURNS]
        again = client.responses.create(**asked, input=turns, instructions="Be brief.")
        with pytest.raises(openai.BadRequestError, match="previous_response_id"):
            client.responses.create(**asked, input="a", previous_response_id=whole.id)
    mine = llm.chat(TURNS, max_tokens=30)
    assert whole.output_text == final.output_text == mine.text
    assert whole.usage is not None and whole.usage.output_tokens == mine.completion_tokens
    assert whole.status == ("completed" if mine.finish_reason == "stop" else "incomplete")
    assert (kinds[0], kinds[-1]) == ("response.created", f"response.{final.status}")
    told = [{"role": "system", "content": "Be brief."}, *TURNS, {"role": "assistant", "content": mine.text}, *TURNS]
    assert again.output_text == llm.chat(told, max_tokens=30).text
