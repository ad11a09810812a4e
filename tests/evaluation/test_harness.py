"""The modes under lm-evaluation-harness answer as they do alone, and score as lm-eval's own class of the same weights.

What lm-eval's base class adds is tested where lm-eval is installed.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.adapters import random_adapter
from tests.fakes import BYTES, byte_tokenizer, lively_model, reciter
from tests.models.checkpoints import refuses
from trimode import LLM
from trimode.errors import InvalidInput
from trimode.evaluation.harness import Harness, main, model_class

LIVELY = LLM(lively_model(vocab_size=BYTES), byte_tokenizer())
PROMPTS = ["a", "hello", "été", "a longer one: 1, 2, 3"]


@dataclass
class Asked:
    """As lm-eval's Instance."""

    args: tuple[Any, ...]
    task_name: str = "some_task"
    doc_id: int = 0


class Remembered(list[Any]):
    """As lm-eval's CacheHook."""

    def add_partial(self, *answer: Any) -> None:
        self.append(answer)


def harness(llm: LLM = LIVELY, **arguments: Any) -> Harness:
    made = Harness(llm, **arguments)
    made.cache_hook = Remembered()
    return made


def asked(prompts: Sequence[str] = PROMPTS, **given: Any) -> list[Asked]:
    return [Asked((prompt, {"max_gen_toks": 10} | given), doc_id=i) for i, prompt in enumerate(prompts)]


# Generating


@pytest.mark.parametrize("batch_size", [1, 3, "auto"])
@pytest.mark.parametrize(
    "settings", [{"mode": "ar"}, {"mode": "self_speculation", "placement": "linear"}, {"mode": "diffusion"}]
)
def test_requests_are_answered_as_by_generate(settings: dict[str, Any], batch_size: int | str) -> None:
    made = harness(batch_size=batch_size, **settings)
    alone = [LIVELY.generate(prompt, max_tokens=10, **settings).text for prompt in PROMPTS]
    assert made.generate_until(asked(), disable_tqdm=True) == alone
    kept = {args[0]: text for _, args, text in made.cache_hook}
    assert kept == dict(zip(PROMPTS, alone, strict=True))


def test_generation_stops_before_a_stop_string() -> None:
    made = harness(LLM(reciter("Straße. END. Not this.", 3), byte_tokenizer()))
    assert made.generate_until(asked(["abc"], until=["END", "xx"], max_gen_toks=40), True) == ["Straße. "]


def test_max_gen_toks_of_the_model_holds_where_a_task_says_nothing() -> None:
    made = harness(LLM(reciter("abcdefgh", 3), byte_tokenizer()), max_gen_toks=4)
    assert made.generate_until([Asked(("xyz", {"until": []}))], True) == ["abcd"]


def test_a_repeated_request_is_another_sample_and_the_first_is_that_of_the_seed() -> None:
    given = dict(do_sample=True, temperature=1.5, seed=7)
    texts = harness(mode="ar").generate_until(asked(["hello"] * 3, **given), True)
    alone = [LIVELY.generate("hello", mode="ar", max_tokens=10, temperature=1.5, seed=seed).text for seed in (7, 8, 9)]
    assert texts == alone
    assert len(set(texts)) == 3


def test_every_generation_leaves_a_line_of_what_it_has_cost(tmp_path: Path) -> None:
    path = tmp_path / "stats.jsonl"
    made = harness(mode="self_speculation", placement="linear", stats=str(path), batch_size=2)
    made.generate_until(asked(), disable_tqdm=True)
    made.generate_until(asked(["more"]), disable_tqdm=True)
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert sorted(line["doc_id"] for line in lines) == [0, 0, 1, 2, 3]
    for line in lines:
        assert (line["task"], line["mode"], line["placement"]) == ("some_task", "self_speculation", "linear")
        assert line["tokens_per_forward"] == line["completion_tokens"] / line["forwards"]["total"]
    (first,) = (line for line in lines[:-1] if line["doc_id"] == 0)
    done = LIVELY.generate(PROMPTS[0], mode="self_speculation", placement="linear", max_tokens=10).to_dict()
    assert {name: value for name, value in first.items() if name in done} == {
        name: value for name, value in done.items() if name not in ("text", "token_ids", "seconds")
    }


def test_an_adapter_is_on_for_generations_and_likelihoods(tmp_path: Path) -> None:
    random_adapter(LIVELY.model.config).save(tmp_path / "tone", "base")
    llm = LLM(lively_model(vocab_size=BYTES), byte_tokenizer())
    made = harness(llm, mode="ar", adapter=str(tmp_path / "tone"))
    adapted = [llm.generate(prompt, mode="ar", max_tokens=10, adapter="tone").text for prompt in PROMPTS]
    assert made.generate_until(asked(), True) == adapted
    pairs = [(None, llm.tokenizer.encode("ab"), llm.tokenizer.encode("cde"))]
    assert made._loglikelihood_tokens(pairs, True) != harness()._loglikelihood_tokens(pairs, True)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"mode": "fast"}, ("mode", "fast", "self_speculation")),
        ({"mode": "ar", "placement": "linear"}, ("placement", "ar")),
        ({"mode": "self_speculation", "placement": "round"}, ("placement", "round", "linear")),
        ({"mode": "diffusion", "confidence_threshold": "high"}, ("confidence_threshold", "high")),
        ({"mode": "diffusion", "trust_remote_code": True}, ("trust_remote_code", "diffusion")),
        ({"truncate": "yes"}, ("truncate", "yes")),
        ({"adapter": "/nowhere"}, ("/nowhere",)),
    ],
)
def test_model_args_are_checked_before_anything_runs(arguments: dict[str, Any], named: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as caught:
        harness(**arguments)
    assert all(name in str(caught.value) for name in named)


def test_a_threshold_may_be_none_in_lm_evals_spelling() -> None:
    assert harness(mode="diffusion", confidence_threshold="none").decoder == {"confidence_threshold": None}


# Tokens


def test_a_prompt_longer_than_the_context_is_refused_or_cut_where_that_is_asked_for() -> None:
    long = "x" * 300
    with refuses(InvalidInput, 300, 256, "truncate"):
        harness().generate_until(asked([long]), True)
    with refuses(InvalidInput, 303, 256, "truncate"):
        harness()._loglikelihood_tokens([(None, [70] * 300, [71] * 3)], True)
    cut = harness(mode="ar", truncate=True)
    assert cut.generate_until(asked([long]), True) == [LIVELY.generate("x" * 246, mode="ar", max_tokens=10).text]
    short = [(None, [70] * 254, [71] * 3)]
    assert cut._loglikelihood_tokens([(None, [70] * 300, [71] * 3)], True) == cut._loglikelihood_tokens(short, True)


def test_a_text_begins_with_bos_where_that_is_asked_for() -> None:
    bos, plain = 1, byte_tokenizer().encode("hi")
    assert harness().tok_encode("hi") == plain
    made = harness(add_bos_token=True)
    assert made.tok_encode("hi") == [bos, *plain]
    assert made.tok_encode("hi", add_special_tokens=False) == plain
    assert harness().tok_encode("hi", add_special_tokens=True) == [bos, *plain]
    assert made.tok_encode("<|bos|>") == [bos, *byte_tokenizer().encode("<|bos|>")]


def test_a_conversation_rendered_as_text_has_the_tokens_of_the_chat_prompt() -> None:
    made, messages = harness(), [{"role": "user", "content": " Say <|im_end|>.\n"}]
    assert made.tok_encode(made.apply_chat_template(messages)) == LIVELY.chat_prompt(messages)
    started = [*messages, {"role": "assistant", "content": "Well,"}]
    text = made.apply_chat_template(started, add_generation_prompt=False)
    assert made.tok_encode(text) == LIVELY.chat_prompt(messages) + byte_tokenizer().encode("Well,")


def test_blocks_that_see_both_ways_generate_and_have_no_likelihood() -> None:
    made = harness(LLM(lively_model(vocab_size=BYTES, commit_visibility="block"), byte_tokenizer()))
    assert made.mode == "diffusion"
    assert len(made.generate_until(asked(["hello"]), True)) == 1
    with refuses(InvalidInput, "see both ways"):
        made._loglikelihood_tokens([(None, [70], [71])], True)


def test_without_lm_eval_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    model_class.cache_clear()
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "pip install 'trimode[harness]'" in capsys.readouterr().err
