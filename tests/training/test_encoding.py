"""Rows become documents whose targets are what should be learned: answers with the token that ends them, once."""

from typing import Any

import pytest

from tests.fakes import EOS, byte_tokenizer
from trimode.errors import InvalidInput
from trimode.tokenizer import Tokenizer
from trimode.training.documents import Document
from trimode.training.encoding import Encoder
from trimode.training.sources import Unusable

BYTES = byte_tokenizer()
ENCODER = Encoder(BYTES, EOS)
END = BYTES.special["<|im_end|>"]
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "1+1?"},
    {"role": "assistant", "content": "2"},
    {"role": "user", "content": "And <|im_end|> is?"},
    {"role": "assistant", "content": "<|im_end|> is text"},
]
THOUGHTFUL = (  # earlier turns lose their thoughts, as in Qwen3's template
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BRACKETS = (  # no header for answers, the end of text behind each, as in Mistral's template
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
NUMBERED = "{% for m in messages %}{{ messages|length }}{{ m['content'] }}<|im_end|>{% endfor %}"


def encoder(template: str | None) -> Encoder:
    return Encoder(Tokenizer(byte_tokenizer().backend, template, "<|bos|>"), EOS)


def targets(document: Document, tokenizer: Tokenizer = BYTES) -> list[str]:
    """Every answer as text, special tokens spelled out."""
    return [tokenizer.backend.decode(document.tokens[a:b], skip_special_tokens=False) for a, b in document.answers]


def reason(fields: Any, by: Encoder = ENCODER) -> str:
    with pytest.raises(Unusable) as why:
        by.document(fields)
    return why.value.reason


def test_a_text_ends_with_the_end_of_text_and_is_learned_from_its_second_token_on() -> None:
    document = ENCODER.document({"text": "abc<|eos|>"})
    assert document.tokens == (*BYTES.encode("abc<|eos|>"), EOS)
    assert document.tokens.count(EOS) == 1
    assert document.answers == ((1, len(document.tokens)),)
    assert document.hole is None


def test_of_a_prompt_and_its_completion_the_completion_is_learned() -> None:
    document = ENCODER.document({"prompt": "1+1=", "completion": "2"})
    assert document.tokens == (*BYTES.encode("1+1=2"), EOS)
    assert targets(document) == ["2<|eos|>"]


def test_of_prefix_middle_and_suffix_the_middle_is_the_hole() -> None:
    document = ENCODER.document({"prefix": "ab", "middle": "cde", "suffix": "f"})
    assert document.tokens == tuple(BYTES.encode("abcdef"))
    assert document.answers == ((2, 5),) == (document.hole,)


@pytest.mark.parametrize("template", [BYTES.chat_template, THOUGHTFUL])
def test_of_a_conversation_every_answer_is_learned_with_its_ending_token_once(template: str) -> None:
    by = encoder(template)
    document = by.document({"messages": TALK})
    think = "<think>\n\n</think>\n\n" if template == THOUGHTFUL else ""
    assert targets(document) == ["2<|im_end|>", f"{think}<|im_end|> is text<|im_end|>"]
    for start, stop in document.answers:
        assert document.tokens[start:stop].count(END) == 1  # what a user typed is no ending token
        opened = BYTES.encode("assistant\n")
        assert list(document.tokens[start - len(opened) : start]) == opened
    assert document.tokens == tuple(by.tokenizer.encode_chat(TALK, add_generation_prompt=False))


def test_a_template_that_ends_answers_with_the_end_of_text_is_told_what_it_is() -> None:
    document = encoder(BRACKETS).document({"messages": TALK[1:]})
    assert targets(document) == [" 2<|eos|>", " <|im_end|> is text<|eos|>"]


def test_a_conversation_is_learned_as_it_is_served() -> None:
    words = Tokenizer(byte_tokenizer().backend, BRACKETS, "<|bos|>", "<|im_end|>")
    learned = Encoder(words, EOS).document({"messages": TALK[1:]})
    assert list(learned.tokens) == words.encode_chat(TALK[1:], add_generation_prompt=False)
    assert targets(learned) == [" 2<|im_end|>", " <|im_end|> is text<|im_end|>"]


def test_an_answer_may_be_empty_and_an_assistant_that_speaks_first_is_context() -> None:
    greeting = [{"role": "assistant", "content": "Hello."}, *TALK[1:2], {"role": "assistant", "content": ""}]
    assert targets(ENCODER.document({"messages": greeting})) == ["<|im_end|>"]


def test_a_template_that_renders_earlier_turns_anew_is_refused() -> None:
    with pytest.raises(Unusable, match=r"messages\[1\] is not rendered as the start of an answer would be") as why:
        encoder(NUMBERED).document({"messages": TALK[1:3]})
    assert why.value.reason == "chat template"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "has no chat template"),
        ("{% for m in messages %}{{ m['content'] }}\n{% endfor %}", "ends no turn with a special token"),
        (
            "{% for m in messages %}{{ m['content'] }}{% if loop.last or m['role'] == 'user' %}<|im_end|>{% endif %}"
            "{% endfor %}",
            "ends only the last turn with a special token",
        ),
        ("{{ raise_exception('never') }}", "does not take a question and an answer"),
    ],
)
def test_a_template_that_suits_no_conversation_stops_the_run(template: str | None, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        encoder(template).document({"messages": TALK})


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"text": ""}, "empty"),
        ({"prompt": "a", "completion": ""}, "empty"),
        ({"prefix": "a", "middle": "", "suffix": "b"}, "empty"),
        ({"prefix": "", "middle": "a", "suffix": ""}, "empty"),
        ({"text": "\ud800"}, "not UTF-8"),
        ({"messages": []}, "empty"),
        ({"messages": "hello"}, "wrong type"),
        ({"messages": [{"role": "user"}]}, "wrong type"),
        ({"messages": TALK[:2]}, "no answer"),
        ({"messages": TALK[2:3]}, "no answer"),
        ({"messages": [*TALK[:2], {"role": "assistant", "content": "\udfff"}]}, "not UTF-8"),
    ],
)
def test_a_row_with_nothing_to_learn_has_a_reason(fields: Any, expected: str) -> None:
    assert reason(fields) == expected


def test_a_single_token_with_no_end_of_text_is_nothing_to_learn() -> None:
    assert reason({"text": "a"}, Encoder(BYTES, None)) == "empty"
    assert Encoder(BYTES, None).document({"text": "ab"}).answers == ((1, 2),)


def test_the_digest_follows_all_that_decides_the_tokens() -> None:
    digests = {encoder(template).digest for template in (None, THOUGHTFUL, BRACKETS)}
    digests |= {Encoder(BYTES, None).digest, ENCODER.digest, Encoder(byte_tokenizer(), EOS).digest}
    digests |= {Encoder(Tokenizer(byte_tokenizer().backend, BRACKETS, "<|bos|>", end), EOS).digest for end in "ab"}
    assert len(digests) == 7


def test_an_empty_prompt_is_no_token_to_predict_from() -> None:
    document = ENCODER.document({"prompt": "", "completion": "ab"})
    assert document.answers == ((1, 3),)
