"""The front door: one prompt or many, whole or streamed; bad input is one sentence: what it is, what is allowed."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.fakes import BYTES, EOS, MASK, VARIANTS, byte_tokenizer, lively_model, reciter, tiny_config
from trimode.api import LLM, Completion, default_sampling
from trimode.errors import CheckpointError, InvalidInput
from trimode.models.checkpoint import empty
from trimode.models.transformer import initialise
from trimode.numerics.sampling import Sampling

LIVELY = LLM(lively_model(vocab_size=BYTES), byte_tokenizer())
CONTEXT = 256
NAN, INF = float("nan"), float("inf")
every_mode = pytest.mark.parametrize("variant", VARIANTS)


def settings(variant: str) -> dict[str, object]:
    mode, options = VARIANTS[variant]
    return {"mode": mode, **options}


@every_mode
def test_the_pieces_of_a_stream_are_the_text_of_the_completion(variant: str) -> None:
    llm = LLM(reciter("Straße nach 京都: END. Not this.", 3), byte_tokenizer())
    stream = llm.stream("abc", stop=["END", "京x"], **settings(variant))
    events = list(stream)
    assert "".join(event.text for event in events) == stream.completion.text == "Straße nach 京都: "
    assert (stream.completion.finish_reason, stream.completion.stop_reason) == ("stop", "END")
    assert stream.completion.token_ids == tuple(byte_tokenizer().encode("Straße nach 京都: END"))
    whole = llm.generate("abc", stop=["END", "京x"], **settings(variant))
    assert (whole.text, whole.token_ids) == (stream.completion.text, stream.completion.token_ids)


@pytest.mark.medium
@every_mode
def test_a_token_may_end_a_text_and_an_eos_may_not(variant: str) -> None:
    llm = LLM(reciter("one; two", 3), byte_tokenizer())
    semicolon = byte_tokenizer().encode(";")[0]
    done = llm.generate("abc", stop_token_ids=[semicolon], **settings(variant))
    assert (done.text, done.token_ids[-1], done.finish_reason) == ("one", semicolon, "stop")
    assert done.stop_reason == semicolon
    goes_on = llm.generate("abc", ignore_eos=True, max_tokens=12, **settings(variant))
    assert (goes_on.text[:8], goes_on.completion_tokens, goes_on.finish_reason) == ("one; two", 12, "length")
    assert goes_on.stop_reason is None
    both = llm.generate("abc", ignore_eos=True, stop_token_ids=[EOS], **settings(variant))
    assert (both.text, both.finish_reason, both.stop_reason) == ("one; two", "stop", None)


@pytest.mark.parametrize(
    "options",
    [{"stop_token_ids": [-1]}, {"stop_token_ids": [BYTES]}, {"stop_token_ids": [MASK]}, {"stop_token_ids": 5},
     {"stop_token_ids": [True]}, {"ignore_eos": 1}, {"ignore_eos": None}],
)  # fmt: skip
def test_what_cannot_end_a_text_is_refused_by_name(options: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(options))):
        LIVELY.generate("a", **options)


def test_a_checkpoint_that_cannot_speculate_has_its_best_mode_by_default() -> None:
    causal = empty(
        tiny_config(vocab_size=BYTES, mask_token_id=None, block_size=None), torch.float32, torch.device("cpu")
    )
    initialise(causal, 0)
    assert LLM(causal.eval(), byte_tokenizer()).generate("hello", max_tokens=5).mode == "ar"
    blocks = LLM(lively_model(vocab_size=BYTES, commit_visibility="block"), byte_tokenizer())
    assert blocks.generate("hello", max_tokens=5, sub_block_size=4).mode == "diffusion"


@pytest.mark.medium
@every_mode
def test_many_prompts_together_are_answered_as_one_by_one(variant: str) -> None:
    prompts = ["a", "hello", [5, 6, 7], "été"]
    chosen = dict(max_tokens=12, temperature=1.2, seed=3, **settings(variant))
    together = LIVELY.generate(prompts, **chosen)
    apart = [LIVELY.generate(prompt, **chosen) for prompt in prompts]
    assert [c.token_ids for c in together] == [c.token_ids for c in apart]
    assert [c.text for c in together] == [c.text for c in apart]
    if variant != "auto":  # whose drafts follow the load, and its text does not
        assert [c.forwards for c in together] == [c.forwards for c in apart]


def test_a_list_of_one_prompt_gives_a_list_and_a_prompt_of_ids_an_answer() -> None:
    assert isinstance(LIVELY.generate([5, 6], max_tokens=1), Completion)
    assert isinstance(LIVELY.generate((5, 6), max_tokens=1), Completion)
    for prompt in (["hi"], [[5, 6]]):
        (answer,) = LIVELY.generate(prompt, max_tokens=1)
        assert answer.completion_tokens == 1


def test_the_default_is_self_speculation_and_it_writes_what_ar_writes() -> None:
    default = LIVELY.generate("hello", max_tokens=20)
    assert (default.mode, default.placement) == ("self_speculation", "pruned")
    assert default.token_ids == LIVELY.generate("hello", mode="ar", max_tokens=20).token_ids


def test_at_most_256_tokens_unless_told() -> None:
    llm = LLM(lively_model(vocab_size=BYTES, eos_token_ids=(), context_length=400), byte_tokenizer())
    assert llm.generate("a", mode="diffusion", confidence_threshold=0.0, block_size=64).completion_tokens == 256


def test_a_seed_repeats_an_answer_and_another_seed_does_not() -> None:
    answers = [LIVELY.generate("hello", max_tokens=20, temperature=2.0, seed=s).token_ids for s in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2]


def test_the_temperature_is_the_checkpoints_unless_told() -> None:
    warm = LLM(LIVELY.model, LIVELY.tokenizer, Sampling(temperature=2.0))
    assert warm.generate("hi", max_tokens=9).token_ids == LIVELY.generate("hi", max_tokens=9, temperature=2).token_ids
    assert warm.generate("hi", max_tokens=9, temperature=0).token_ids == LIVELY.generate("hi", max_tokens=9).token_ids


def test_a_checkpoints_generation_config_holds_where_it_says_do_sample(tmp_path: Path) -> None:
    def defaults(**fields: object) -> Sampling:
        (tmp_path / "generation_config.json").write_text(json.dumps(fields))
        return default_sampling(tmp_path)

    assert default_sampling(tmp_path) == defaults(temperature=0.6, top_k=9) == Sampling()
    assert defaults(do_sample=False, temperature=0.6) == Sampling()
    assert defaults(do_sample=True) == Sampling(temperature=1.0)
    fields = dict(temperature=0.6, top_k=9, top_p=0.9, repetition_penalty=1.1)
    assert defaults(do_sample=True, eos_token_id=2, **fields) == Sampling(**fields)
    with pytest.raises(CheckpointError, match=r"generation_config\.json: top_p is 7"):
        defaults(do_sample=True, top_p=7)


def test_a_call_changes_only_the_defaults_it_names() -> None:
    cool = LLM(LIVELY.model, LIVELY.tokenizer, Sampling(temperature=2.0, top_k=3))
    chosen = dict(max_tokens=9, temperature=2.0, top_k=3, seed=4, presence_penalty=1.0)
    assert (
        cool.generate("hi", max_tokens=9, seed=4, presence_penalty=1.0).token_ids
        == LIVELY.generate("hi", **chosen).token_ids
    )


@pytest.mark.medium
@every_mode
def test_every_sampling_option_reaches_the_answer(variant: str) -> None:
    chosen = dict(max_tokens=20, temperature=1.5, **settings(variant))
    usual = LIVELY.generate("hello", **chosen).token_ids
    for option in (
        dict(top_k=1), dict(top_p=0.1), dict(min_p=1.0), dict(repetition_penalty=3.0), dict(presence_penalty=2.0),
        dict(frequency_penalty=2.0), dict(logit_bias={"99": 100}), dict(banned_token_ids=usual[:1]),
        dict(max_thinking_tokens=3, end_think_token_id=99), dict(logit_bias={EOS: 100}, min_tokens=5),
    ):  # fmt: skip
        assert LIVELY.generate("hello", **chosen, **option).token_ids != usual, option


def test_a_closed_stream_keeps_its_text_and_is_cancelled() -> None:
    llm = LLM(reciter("abcdefgh", 2), byte_tokenizer())
    stream = llm.stream([5, 6], mode="ar")
    events = iter(stream)
    text = "".join(next(events).text for _ in range(3))
    text += stream.close().text
    assert list(events) == []
    assert stream.completion.text == text == "abc"
    assert stream.completion.finish_reason == "cancelled"


def test_a_completion_is_ready_for_json() -> None:
    answer = LIVELY.generate("hello", max_tokens=5)
    row = json.loads(json.dumps(answer.to_dict()))
    assert list(row) == ["text", "token_ids", "finish_reason", "stop_reason", "mode", "placement", "prompt_tokens",
                         "cached_tokens", "completion_tokens", "forwards", "tokens_per_forward", "acceptance_length",
                         "acceptance", "seconds", "logprobs", "prompt_logprobs"]  # fmt: skip
    assert tuple(row["token_ids"]) == answer.token_ids
    assert row == answer.to_dict()
    assert row["seconds"] > 0


def test_log_probabilities_are_told_where_they_were_asked_for() -> None:
    plain, asked = LIVELY.generate("hello", max_tokens=5), LIVELY.generate("hello", max_tokens=5, logprobs=2)
    assert plain.logprobs is plain.prompt_logprobs is asked.prompt_logprobs is None
    assert asked.logprobs and [named.token for named in asked.logprobs] == list(plain.token_ids)
    assert all(named.best[0] == (named.token, pytest.approx(named.logprob)) for named in asked.logprobs)
    row = json.loads(json.dumps(asked.to_dict()))
    assert row == asked.to_dict()
    assert list(row["logprobs"][0]) == ["token", "logprob", "best", "rank"]


def test_only_a_watched_stream_shows_its_canvas() -> None:
    chosen = dict(mode="diffusion", max_tokens=12, block_size=6, confidence_threshold=0.9)
    assert all(event.view is None and event.named is None for event in LIVELY.stream("hi", **chosen))
    events = list(LIVELY.stream("hi", watch=True, **chosen))
    views = [event.view.canvas for event in events if event.view and event.view.canvas]
    assert views
    assert all(len(view) == 6 and any(slot.token is None for slot in view) for view in views)
    assert json.loads(json.dumps(events[0].to_dict())) == events[0].to_dict()


def test_text_that_looks_like_a_special_token_is_text() -> None:
    llm = LLM(reciter("ok", len("<|mask|><|eos|>")), byte_tokenizer())
    answer = llm.generate("<|mask|><|eos|>")
    assert answer.text == "ok"
    assert answer.prompt_tokens == len("<|mask|><|eos|>")
    assert not {MASK, EOS} & set(llm.chat_prompt("<|mask|><|eos|>"))


def test_a_conversation_is_opened_for_the_assistant() -> None:
    tokens = LIVELY.chat_prompt([{"role": "user", "content": "hi"}])
    assert tokens == LIVELY.chat_prompt("hi")
    assert tokens[0] == 260
    assert LIVELY.chat("hi", max_tokens=3).prompt_tokens == len(tokens)


def refusal(call: Callable[[], object]) -> str:
    """The sentence with which a call is refused."""
    with pytest.raises(InvalidInput) as refused:
        call()
    sentence = str(refused.value)
    assert "\n" not in sentence
    assert len(sentence) < 300
    return sentence


@pytest.mark.parametrize(
    ("options", "named", "allowed"),
    [
        (dict(mode="linearspec"), "mode", "ar, diffusion, self_speculation"),
        (dict(mode=None), "mode", "ar, diffusion, self_speculation"),
        (dict(mode=["ar"]), "mode", "ar, diffusion, self_speculation"),
        (dict(mode="diffusion", block_size=0), "block_size", "1 to 1024"),
        (dict(block_size=0), "block_size", "1 to 1024"),
        (dict(temperature=NAN), "temperature", "0"),
        (dict(temperature=INF), "temperature", "0"),
        (dict(temperature=-1), "temperature", "0"),
        (dict(temperature="hot"), "temperature", "0"),
        (dict(max_tokens=0), "max_tokens", "at least 1"),
        (dict(max_tokens=-5), "max_tokens", "at least 1"),
        (dict(max_tokens=2.5), "max_tokens", "at least 1"),
        (dict(max_tokens=NAN), "max_tokens", "at least 1"),
        (dict(max_tokens="9"), "max_tokens", "at least 1"),
        (dict(max_tokens=True), "max_tokens", "at least 1"),
        (dict(max_tokens=None), "max_tokens", "at least 1"),
        (dict(seed=1.5), "seed", "0 to"),
        (dict(seed=-1), "seed", "0 to"),
        (dict(seed=2**64), "seed", "0 to"),
        (dict(stop=""), "stop", "at least one character"),
        (dict(stop=["ok", ""]), "stop", "at least one character"),
        (dict(stop=[3]), "stop", "text"),
        (dict(stop=None), "stop", "text"),
        (dict(best_of=2), "best_of", "draft_length"),
        (dict(top_k=-1), "top_k", "at least 0"),
        (dict(top_p=0), "top_p", "above 0.0 and at most 1.0"),
        (dict(min_p=2), "min_p", "0.0 to 1.0"),
        (dict(repetition_penalty=0), "repetition_penalty", "above 0.0"),
        (dict(presence_penalty=3), "presence_penalty", "-2.0 to 2.0"),
        (dict(frequency_penalty=-3), "frequency_penalty", "-2.0 to 2.0"),
        (dict(logit_bias={"5": 200}), "logit_bias", "-100.0 to 100.0"),
        (dict(logit_bias={BYTES: 1}), "logit_bias", f"0 to {BYTES - 1}"),
        (dict(banned_token_ids=[BYTES]), "banned_token_ids", f"0 to {BYTES - 1}"),
        (dict(banned_token_ids=range(BYTES)), "banned_token_ids", "none of"),
        (dict(min_tokens=9, max_tokens=8), "min_tokens", "0 to 8"),
        (dict(max_thinking_tokens=-1, end_think_token_id=9), "max_thinking_tokens", "at least 0"),
        (dict(max_thinking_tokens=4), "end_think_token_id", "ends the thinking"),
        (dict(max_thinking_tokens=4, end_think_token_id=MASK), "end_think_token_id", "mask"),
        (dict(mode="ar", block_size=8), "block_size", "none"),
        (dict(mode="diffusion", draft_length=8), "draft_length", "confidence_threshold"),
        (dict(mode="self_speculation", anchor="none"), "anchor", "committed, canvas"),
        (dict(anchor="canvas", placement="pruned"), "anchor", "linear"),
        (dict(mode="ar", anchor="canvas"), "anchor", "none"),
        (dict(mode="diffusion", anchor="seeded"), "anchor", "fused, canvas, none"),
        (dict(mode="diffusion", confidence_threshold=NAN), "confidence_threshold", "at least 0"),
        (dict(mode="diffusion", confidence_threshold=-0.5), "confidence_threshold", "at least 0"),
        (dict(mode="diffusion", max_denoising_steps=0), "max_denoising_steps", "at least 1"),
        (dict(placement="cubic"), "placement", "linear, chained, pruned, quadratic"),
        (dict(lookup_length=-1), "lookup_length", "at least 0"),
        (dict(verify_above=1.5), "verify_above", "0.0 to 1.0"),
        (dict(draft_length=0), "draft_length", "1 to 1024"),
        (dict(fallback_below=-1.0), "fallback_below", "0.0 to 1024.0"),
        (dict(mask_token_id=5), "mask_token_id", "draft_length"),
    ],
    ids=str,
)
@pytest.mark.parametrize("way", ["generate", "stream", "chat"])
def test_a_bad_option_is_refused_with_its_name_and_what_is_allowed(
    options: dict[str, object], named: str, allowed: str, way: str
) -> None:
    sentence = refusal(lambda: getattr(LIVELY, way)("hello", **options))
    assert named in sentence
    assert allowed in sentence


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("", ["prompt is empty", "at least one token"]),
        ([], ["prompt is empty", "at least one token"]),
        ([[]], ["prompt is empty", "at least one token"]),
        (["fine", ""], ["prompt is empty", "at least one token"]),
        ("x" * CONTEXT, ["256 tokens", "holds 256"]),
        ([5] * CONTEXT, ["256 tokens", "holds 256"]),
        ([5, BYTES], ["prompt token 1", "262", "0 to 261"]),
        ([-1], ["prompt token 0", "-1", "0 to 261"]),
        ([5, 2**70], ["prompt token 1", "0 to 261"]),
        ([5, MASK], ["prompt token 1", "3", "reserved"]),
        ([0], ["prompt token 0", "0", "reserved"]),  # the pad id
        ([5.0], ["prompt", "token ids"]),
        ([True, 5], ["prompt", "token ids"]),
        ([[5, "a"]], ["prompt", "token ids"]),
        ([None], ["prompt", "token ids"]),
        (np.array([5, 6]), ["prompt", "token ids"]),
        (None, ["prompt", "token ids"]),
        (5, ["prompt", "token ids"]),
        (b"bytes", ["prompt", "token ids"]),
        ("half a \ud800 pair", ["surrogate"]),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_bad_prompt_is_refused_with_the_place_and_what_is_allowed(prompt: object, parts: list[str]) -> None:
    sentence = refusal(lambda: LIVELY.generate(prompt, max_tokens=1))
    assert all(part in sentence for part in parts), sentence


def test_the_longest_prompt_allowed_leaves_room_for_one_token() -> None:
    answer = LIVELY.generate([5] * (CONTEXT - 1))
    assert (answer.completion_tokens, answer.prompt_tokens) == (1, CONTEXT - 1)


def test_chat_markup_and_the_ends_of_text_are_allowed_as_token_ids() -> None:
    assert LIVELY.generate([1, 260, 5, 261, EOS], max_tokens=1).prompt_tokens == 5


@pytest.mark.parametrize(
    "messages", [[], [{"role": "user"}], [{"content": "hi"}], [{"role": "user", "content": 5}], ["hi"], [None]], ids=str
)
def test_a_bad_conversation_is_refused(messages: object) -> None:
    assert "messages" in refusal(lambda: LIVELY.chat(messages))


def test_nothing_runs_before_all_prompts_are_checked() -> None:
    model = reciter("abc", 1)
    refusal(lambda: LLM(model, byte_tokenizer()).generate(["a", "b", [MASK]]))
    assert model.calls == []


def test_temperature_zero_is_greedy_whatever_the_seed() -> None:
    assert Sampling().temperature == 0.0
    answers = {LIVELY.generate("hello", max_tokens=9, temperature=0, seed=s).token_ids for s in range(3)}
    assert len(answers) == 1
