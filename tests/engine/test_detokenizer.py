"""Text comes out piece by piece as if decoded at once, and never holds a stop string or its beginning."""

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
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


def pieces_of(data: bytes, cuts: list[int]) -> tuple[Tokenizer, list[int]]:
    """Bytes cut anywhere into tokens, and a tokenizer of these tokens: what a vocabulary may do at its worst."""
    edges = [0, *sorted({min(cut, len(data)) for cut in cuts} - {0, len(data)}), len(data)]
    letter = bytes_to_letters()
    words = ["".join(letter[byte] for byte in data[a:b]) for a, b in pairwise(edges) if a < b]
    ids = {word: i for i, word in enumerate(dict.fromkeys(words))}
    backend = Backend(models.BPE(vocab=ids, merges=[]))
    backend.decoder = ByteLevel()
    return Tokenizer(backend), [ids[word] for word in words]


CUTS = st.lists(st.integers(1, 40), max_size=30)


@given(st.text("aé€\U0001f600", max_size=12), CUTS)
@example("€" * 12, list(range(1, 40, 3)))
def test_however_text_is_cut_into_tokens_it_comes_out_whole(text: str, cuts: list[int]) -> None:
    tokenizer, tokens = pieces_of(text.encode(), cuts)
    sent, pieces, _ = feed(tokens, tokenizer=tokenizer)
    assert sent == text
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("character", ["é", "€", "\U0001f600"])
def test_tokens_that_all_end_in_the_middle_of_a_character_never_show_half_of_it(character: str) -> None:
    data = (character * 40).encode()
    tokenizer, tokens = pieces_of(data, list(range(1, len(data), len(character.encode()))))
    sent, pieces, _ = feed(tokens, tokenizer=tokenizer)
    assert sent == character * 40
    assert max(map(len, pieces)) < 10  # and they come as they are finished, not all at the end


@given(
    st.text("abé", max_size=14),
    CUTS,
    st.lists(st.text("abé", min_size=1, max_size=3), min_size=1, max_size=3),
)
@example("abé", [], ["abé", "b"])  # letter by letter "b" is complete first, also if one token brings all three
def test_however_text_is_cut_into_tokens_the_stop_string_completed_first_ends_it(
    text: str, cuts: list[int], stop: list[str]
) -> None:
    tokenizer, tokens = pieces_of(text.encode(), cuts)
    found = [(text.find(s) + len(s), text.find(s)) for s in stop if s in text]
    assert feed(tokens, *stop, tokenizer=tokenizer)[0] == (text[: min(found)[1]] if found else text)


class Counting:
    """A tokenizer that notes how many tokens each decode was given."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def decode(self, tokens: list[int]) -> str:
        self.sizes.append(len(tokens))
        return TOKENIZER.decode(tokens)


@pytest.mark.parametrize("text", ["a quick fox. ", "€", "é\U0001f600x", "\ufffd"])
@pytest.mark.parametrize("n_special", [0, 3])
def test_the_cost_of_a_token_does_not_grow_with_the_text(text: str, n_special: int) -> None:
    unit = [*TOKENIZER.encode(text), *[1] * n_special]
    tokens, counting = (unit * 1000)[:1000], Counting()
    feed(tokens, "stop", "\ufffd.", tokenizer=counting)  # type: ignore[arg-type]
    assert max(counting.sizes) <= 24
    assert sum(counting.sizes) <= 24 * len(tokens)


def test_the_cost_of_a_token_does_not_grow_with_special_tokens_or_broken_bytes() -> None:
    broken = TOKENIZER.encode("€")[:1]
    for token in (1, *broken):
        counting = Counting()
        feed([token] * 1000, tokenizer=counting)  # type: ignore[arg-type]
        assert max(counting.sizes) <= 24
