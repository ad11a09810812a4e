"""Text comes out piece by piece as if decoded at once, and never holds a stop string or its beginning."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers
from tokenizers.decoders import ByteLevel

from tests.fakes import byte_tokenizer
from trimode.engine.detokenizer import Detokenizer
from trimode.tokenizer import Tokenizer

TOKENIZER = byte_tokenizer()


def feed(tokens: list[int], *stop: str, tokenizer: Tokenizer = TOKENIZER) -> tuple[str, list[str], int]:
    """The text, its pieces, and how many tokens it took."""
    text, pieces = Detokenizer(tokenizer, stop), []
    taken = 0
    for token in tokens:
        taken += 1
        stopped = text.add(token)
        pieces.append(text.piece(stopped))
        if stopped:
            break
    pieces.append(text.piece(is_last=True))
    assert "".join(pieces) == text.sent
    return text.sent, pieces, taken


def merged() -> Tokenizer:
    """Tokens that hold more than a byte: half a character with text before it, and two letters."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [("x", "Ã"), ("a", "b")]  # "Ã" spells byte C3, the first half of "é"
    words = ["<|eos|>", *alphabet, *("".join(pair) for pair in pairs)]
    backend = Backend(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=pairs))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = ByteLevel()
    backend.add_special_tokens(["<|eos|>"])
    return Tokenizer(backend)


@settings(max_examples=40)
@given(st.text(max_size=20), st.lists(st.text(min_size=1, max_size=3), max_size=2))
def test_any_text_comes_out_whole_up_to_the_first_stop_string(text: str, stop: list[str]) -> None:
    sent, pieces, _ = feed(TOKENIZER.encode(text), *stop)
    complete = min((text.find(s) + len(s) for s in stop if s in text), default=None)
    whole = text if complete is None else text[: min(text.find(s) for s in stop if s in text[:complete])]
    assert sent == whole
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3))
def test_overlapping_beginnings_of_stop_strings_never_leak(text: str, stop: list[str]) -> None:
    sent, _, taken = feed(TOKENIZER.encode(text), *stop)
    complete = min((text.find(s) + len(s) for s in stop if s in text), default=len(text))
    assert taken == complete
    assert sent == text[: min((text.find(s) for s in stop if s in text[:complete]), default=len(text))]


@given(st.binary(max_size=30))
def test_bytes_that_are_no_text_read_as_if_decoded_at_once(data: bytes) -> None:
    letters = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()), start=4)}
    byte_of = bytes_to_letters()
    tokens = [letters[byte_of[b]] for b in data]
    assert feed(tokens)[0] == data.decode("utf-8", "replace")


def bytes_to_letters() -> dict[int, str]:
    """GPT-2's table: printable bytes stand for themselves, the others for letters from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(rest)}


def test_a_character_after_a_long_run_of_broken_bytes_is_whole() -> None:
    letters = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()), start=4)}
    data = b"\x80" * 7 + "€".encode()
    assert feed([letters[bytes_to_letters()[b]] for b in data])[0] == data.decode("utf-8", "replace")


def test_a_stop_string_before_half_a_character_is_found() -> None:
    tokenizer = merged()
    sent, _, taken = feed(tokenizer.encode("axé."), "x", tokenizer=tokenizer)
    assert sent == "a"
    assert taken == 2  # the token that ends in half an é completes the stop string


def test_a_stop_string_before_half_a_character_does_not_leak_at_the_very_end() -> None:
    tokenizer = merged()
    sent, _, _ = feed(tokenizer.encode("axé.")[:2], "x", tokenizer=tokenizer)
    assert "x" not in sent


def test_a_token_that_goes_beyond_a_stop_string_is_cut_in_the_text() -> None:
    tokenizer = merged()
    assert feed(tokenizer.encode("cab."), "a", tokenizer=tokenizer)[:2] == ("c", ["c", "", ""])


@pytest.mark.parametrize("stop", [("b", "ab"), ("ab", "b")])
def test_of_two_stop_strings_completed_by_one_token_the_earlier_one_cuts(stop: tuple[str, ...]) -> None:
    tokenizer = merged()
    assert feed(tokenizer.encode("cab."), *stop, tokenizer=tokenizer)[0] == "c"


def test_special_tokens_are_no_text() -> None:
    sent, _, _ = feed([*TOKENIZER.encode("a"), 1, *TOKENIZER.encode("b"), 261, 0])
    assert sent == "ab"
