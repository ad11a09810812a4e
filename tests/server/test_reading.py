"""Every field of a request is honoured, known to ask for nothing, known to have no effect, or refused by its name."""

import math
from typing import Any

import pytest

from trimode.decoding import MODES, options
from trimode.numerics.parameters import MASK64
from trimode.server.body import ChatBody, CompletionBody
from trimode.server.checking import NEUTRAL, WITHOUT_EFFECT, parse
from trimode.server.reading import Ask, read, turns
from trimode.server.refusals import Refused

TURN = {"role": "user", "content": "hello"}


def ask(document: dict[str, Any], defaults: dict[str, Any] | None = None, lenient: bool = False) -> Ask:
    body, warnings = parse(CompletionBody, {"prompt": "a"} | document, lenient)
    return read(body, warnings, defaults or {}, "ar")


def refusal(document: dict[str, Any]) -> Refused:
    with pytest.raises(Refused) as caught:
        ask(document)
    assert caught.value.status == 400
    return caught.value


def test_parameters_arrive_as_the_python_api_calls_them() -> None:
    given = {"temperature": 0.5, "top_k": 3, "top_p": 0.9, "min_p": 0.1, "seed": 7, "min_tokens": 2, "max_tokens": 9,
             "presence_penalty": 0.1, "frequency_penalty": 0.2, "repetition_penalty": 1.1, "logit_bias": {"4": -1.0},
             "banned_token_ids": [5]}  # fmt: skip
    assert ask(given).options == given | {"mode": "ar"}


@pytest.mark.parametrize("mode", MODES)
def test_every_parameter_of_a_mode_is_a_field(mode: str) -> None:
    named = set(CompletionBody.model_fields)
    assert set(options(mode)) <= named


def test_a_field_that_is_null_counts_as_left_out() -> None:
    names = [name for name in CompletionBody.model_fields if name != "prompt"]
    found = ask(dict.fromkeys(names))
    assert set(found.options) == {"mode", "seed"}
    assert (found.n, found.stream, found.echo) == (1, False, False)


def test_without_a_seed_every_request_draws_one() -> None:
    assert ask({}).options["seed"] != ask({}).options["seed"]


def test_seeds_of_either_sign_are_told_apart() -> None:
    assert ask({"seed": -1}).options["seed"] == MASK64
    assert refusal({"seed": MASK64 + 1}).param == "seed"


def test_none_is_a_word_where_python_has_none() -> None:
    asked = {"generation_mode": "diffusion", "confidence_threshold": "none", "remask": "none"}
    assert ask(asked).options["confidence_threshold"] is None
    assert ask(asked).options["remask"] == "none"


def test_the_words_of_articles_are_understood() -> None:
    asked = {"extra_body": {"generation_mode": "FastDiffuser", "steps": 4, "threshold": 0.8}, "diffusion_block_size": 8}
    assert {k: v for k, v in ask(asked).options.items() if k != "seed"} == {
        "mode": "diffusion", "max_denoising_steps": 4, "confidence_threshold": 0.8, "block_size": 8
    }  # fmt: skip
    assert ask({"spec_variant": "quad"}).options["placement"] == "quadratic"


def test_a_field_given_twice_is_refused_unless_both_agree() -> None:
    assert "twice" in str(refusal({"steps": 4, "max_denoising_steps": 5}))
    assert ask({"steps": 4, "max_denoising_steps": 4}).options["max_denoising_steps"] == 4


def test_the_servers_own_parameters_hold_for_the_modes_that_have_them() -> None:
    defaults = {"block_size": 8, "draft_length": 4}
    assert "block_size" not in ask({}, defaults).options
    assert ask({"generation_mode": "diffusion"}, defaults).options["block_size"] == 8
    assert ask({"generation_mode": "diffusion", "block_size": 16}, defaults).options["block_size"] == 16


@pytest.mark.parametrize("name", NEUTRAL)
def test_what_asks_for_nothing_is_accepted_and_anything_else_refused(name: str) -> None:
    for value in (*NEUTRAL[name], None):
        assert ask({name: value}).warnings == ()
    error = refusal({name: "something else"})
    assert error.param == name
    assert (error.code == "unsupported_parameter") == (name not in CompletionBody.model_fields)


def test_one_is_not_true() -> None:
    assert refusal({"logprobs": True}).param == "logprobs"
    assert refusal({"best_of": True}).param == "best_of"


@pytest.mark.parametrize("name", WITHOUT_EFFECT)
def test_what_has_no_effect_anywhere_is_accepted(name: str) -> None:
    assert ask({name: "anything"}).warnings == ()


def test_an_unknown_field_is_refused_by_name_or_warned_about() -> None:
    assert refusal({"tempreature": 1}).param == "tempreature"
    assert ask({"tempreature": 1, "user": "me"}, lenient=True).warnings == ("tempreature",)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("temperature", (-0.1, math.nan, math.inf, True, "1")), ("top_p", (0, 1.1, math.nan)),
        ("top_k", (-2, 1.5, True)),
        ("n", (0, -1, True, 10**6)), ("max_tokens", (0, -1, True, 2**31)), ("stop", ("", [""], ["a"] * 17, "a" * 257)),
        ("logit_bias", ({"1": 101.0}, {"1": math.nan}, [1])), ("stream", (1, "true")), ("min_p", (-1, 2)),
        ("presence_penalty", (3, -3)), ("repetition_penalty", (0, -1, math.inf)), ("placement", ("sideways", 1)),
        ("block_size", (0, 2.0)), ("generation_mode", (1, "x" * 65)), ("prompt", ([], [[]], [True], [-1], 1, {})),
        ("extra_body", (1, [])), ("confidence_threshold", (-1, True, "some")),
    ],
)  # fmt: skip
def test_what_is_out_of_range_is_refused_by_name(name: str, values: tuple[Any, ...]) -> None:
    for value in values:
        assert refusal({name: value}).param == name


def test_a_body_that_is_no_object_is_refused() -> None:
    for document in ([], "text", 3, None):
        with pytest.raises(Refused, match="no JSON object"):
            parse(ChatBody, document)


def test_messages_may_be_texts_or_lists_of_texts() -> None:
    parts = {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "me"}
    body, _ = parse(ChatBody, {"messages": [TURN, parts]})
    assert turns(body.messages) == [TURN, {"role": "user", "content": "ab", "name": "me"}]


@pytest.mark.parametrize(
    "message",
    [{"role": "user"}, {"content": "a"}, {"role": "", "content": "a"}, {"role": "user", "content": None},
     {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://a"}}]}, "hello", None],
)  # fmt: skip
def test_other_messages_are_refused(message: Any) -> None:
    with pytest.raises(Refused) as caught:
        parse(ChatBody, {"messages": [message]})
    assert caught.value.param == "messages"


def test_a_field_of_a_message_that_would_be_lost_is_refused() -> None:
    body, _ = parse(ChatBody, {"messages": [TURN | {"tool_calls": [{"id": "1"}]}]})
    with pytest.raises(Refused, match=r"messages\[0\].tool_calls"):
        turns(body.messages)


def test_stream_options_are_for_streams() -> None:
    assert refusal({"stream_options": {"include_usage": True}}).param == "stream_options"
    assert ask({"stream": True, "stream_options": {"include_usage": True}}).include_usage
