"""Log-probabilities and the view of the canvas over HTTP, with real clients against a real process."""

import json
import math
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

import pytest

from tests.server.processes import Server
from trimode.api import LLM
from trimode.decoding import MODES
from trimode.engine.events import SlotState

pytestmark = pytest.mark.medium
SORT = "Sort the list in ascending order.\n4, 3, 9\nAnswer:\n"
TURNS: Any = [{"role": "user", "content": "Reverse the list:\n4, 3, 9"}]
STATES = set(SlotState.__args__)  # type: ignore[attr-defined]


def events(server: Server, path: str, body: dict[str, Any]) -> list[Any]:
    """The data of a stream as a client without any knowledge of it reads them."""
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.request("POST", path, json.dumps(body | {"stream": True}))
        answer = connection.getresponse()
        assert answer.status == 200
        lines = answer.read().decode().splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith("data: ") and line != "data: [DONE]"]


@pytest.mark.parametrize("mode", MODES)
def test_a_conversation_tells_how_probable_its_tokens_were(server: Server, llm: LLM, mode: str) -> None:
    mine = llm.chat(TURNS, max_tokens=20, mode=mode, logprobs=2)
    asked: dict[str, Any] = dict(model="trimode", messages=TURNS, max_tokens=20, logprobs=True, top_logprobs=2)
    with server.client() as client:
        whole = client.chat.completions.create(**asked, extra_body={"generation_mode": mode}).choices[0].logprobs
        chunks = list(client.chat.completions.create(**asked, stream=True, extra_body={"generation_mode": mode}))
    streamed = [one for chunk in chunks if chunk.choices[0].logprobs for one in chunk.choices[0].logprobs.content]
    assert mine.logprobs is not None
    for told in (whole.content, streamed):
        assert [one.logprob for one in told] == pytest.approx([named.logprob for named in mine.logprobs], abs=1e-4)
        assert b"".join(bytes(one.bytes) for one in told).decode().startswith(mine.text)
        assert all(len(one.top_logprobs) == 2 for one in told)


def test_an_echo_tells_of_the_prompt_as_evaluation_harnesses_ask_for_it(server: Server, llm: LLM) -> None:
    mine = llm.generate(SORT, max_tokens=3, mode="ar", logprobs=1, prompt_logprobs=1)
    with server.client() as client:
        answer = client.completions.create(model="trimode", prompt=SORT, max_tokens=3, logprobs=1, echo=True,
                                           extra_body={"generation_mode": "ar"}).choices[0]  # fmt: skip
    told = answer.logprobs
    assert answer.text == SORT + mine.text and mine.prompt_logprobs and mine.logprobs
    assert told.token_logprobs[0] is None and told.top_logprobs[0] is None
    expected = [named.logprob for named in (*mine.prompt_logprobs[1:], *mine.logprobs) if named]
    assert told.token_logprobs[1:] == pytest.approx(expected, abs=1e-4)
    assert "".join(told.tokens).startswith(answer.text)
    assert all(answer.text[at:].startswith(word) for at, word in zip(told.text_offset, told.tokens, strict=True)
               if at < len(answer.text))  # fmt: skip
    assert all(word in likely for word, likely in zip(told.tokens[1:], told.top_logprobs[1:], strict=True))


def test_a_streamed_completion_tells_offsets_that_go_on(server: Server) -> None:
    asked = {"prompt": SORT, "max_tokens": 12, "logprobs": 0, "seed": 1, "temperature": 1.5}
    whole = server.ask("POST", "/v1/completions", asked)[1]["choices"][0]["logprobs"]
    parts = [chunk["choices"][0]["logprobs"] for chunk in events(server, "/v1/completions", asked)]
    for name in ("tokens", "text_offset", "top_logprobs"):
        assert [one for part in parts if part for one in part[name]] == whole[name]
    assert whole["text_offset"][0] == 0 and len(whole["tokens"]) == 12


def test_the_prompt_is_told_apart_as_vllm_does(server: Server, llm: LLM) -> None:
    body = {"messages": TURNS, "max_tokens": 1, "prompt_logprobs": 2}
    told = server.ask("POST", "/v1/chat/completions", body)[1]["prompt_logprobs"]
    prompt = llm.chat_prompt(TURNS)
    assert told[0] is None and len(told) == len(prompt)
    for token, likely in zip(prompt[1:], told[1:], strict=True):
        assert {one["rank"] for one in likely.values()} >= {1, 2} and str(token) in likely
    body = {"prompt": SORT, "max_tokens": 1, "prompt_logprobs": 0}
    (choice,) = server.ask("POST", "/v1/completions", body)[1]["choices"]
    assert all(len(likely) == 1 for likely in choice["prompt_logprobs"][1:])


@pytest.mark.parametrize("mode", MODES)
def test_a_canvas_that_is_watched_tells_the_text(server: Server, llm: LLM, mode: str) -> None:
    asked = {"prompt": SORT, "max_tokens": 40, "generation_mode": mode, "stream_mode": "denoise"}
    chunks = events(server, "/v1/completions", asked)
    mine = llm.generate(SORT, max_tokens=40, mode=mode)
    looks = [chunk["denoise"] for chunk in chunks if "denoise" in chunk]
    assert [look["forwards"] for look in looks] == list(range(1, mine.forwards["total"] + 1))
    final = [slot for look in looks for slot in look["settled"] if slot["state"] != "rejected"]
    assert [slot["token"] for slot in final] == list(mine.token_ids)
    assert [slot["position"] for slot in final] == list(range(len(mine.token_ids)))
    assert "".join(slot["text"] for slot in final) == mine.text
    slots = [slot for look in looks for slot in (*look["settled"], *look["canvas"])]
    assert {slot["state"] for slot in slots} <= STATES
    assert all(slot["confidence"] is None or 0 <= slot["confidence"] <= 1 + 1e-9 for slot in slots)
    assert any(look["canvas"] for look in looks) == (mode not in ("ar", "prompt_lookup"))
    text = "".join(chunk["choices"][0]["text"] for chunk in chunks if chunk["choices"])
    assert text == mine.text


def test_clients_that_know_nothing_of_canvases_get_the_same_text(server: Server, llm: LLM) -> None:
    import anthropic

    text = llm.chat(TURNS, max_tokens=30, mode="diffusion").text
    extra = {"generation_mode": "diffusion", "diffusing": True}
    with server.client() as client:
        chat = client.chat.completions.create(
            model="trimode", messages=TURNS, max_tokens=30, stream=True, extra_body=extra
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chat if chunk.choices) == text
        responses = client.responses.create(
            model="trimode", input=TURNS[0]["content"], max_output_tokens=30, stream=True, extra_body=extra
        )
        assert "".join(e.delta for e in responses if e.type == "response.output_text.delta") == text
    url = f"http://127.0.0.1:{server.port}"
    with (
        anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as client,
        client.messages.stream(model="trimode", messages=TURNS, max_tokens=30, extra_body=extra) as stream,
    ):
        assert "".join(stream.text_stream) == text


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"stream_mode": "denoise"}, "stream_mode"),
        ({"stream_mode": "text", "diffusing": True, "stream": True}, "stream_mode"),
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
        ({"echo": True, "logprobs": 1, "stream": True}, "logprobs"),
        ({"echo": True, "logprobs": 1, "prompt_logprobs": 2}, "prompt_logprobs"),
        ({"logprobs": 21}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
    ],
)
def test_what_cannot_be_told_is_refused_by_its_name(server: Server, body: dict[str, Any], param: str) -> None:
    status, answer, _ = server.ask("POST", "/v1/completions", {"prompt": SORT} | body)
    assert (status, answer["error"]["param"]) == (400, param)


def test_the_likeliest_are_of_a_conversation_that_asks_for_log_probabilities(server: Server) -> None:
    status, answer, _ = server.ask("POST", "/v1/chat/completions", {"messages": TURNS, "top_logprobs": 3})
    assert (status, answer["error"]["param"]) == (400, "top_logprobs")


def test_every_number_that_is_told_is_finite(server: Server) -> None:
    body = {"prompt": SORT, "max_tokens": 8, "logprobs": 20, "temperature": 2.0, "seed": 3}
    told = server.ask("POST", "/v1/completions", body)[1]["choices"][0]["logprobs"]
    assert all(math.isfinite(one) and one <= 0 for one in told["token_logprobs"])
