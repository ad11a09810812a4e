"""What ends a text, in every mode: EOS, a stop string, max_tokens, the end of the context; nothing comes after it."""

from itertools import pairwise

import pytest

from tests.fakes import (
    BYTES,
    EOS,
    VARIANTS,
    ScriptedModel,
    Watched,
    alone,
    byte_tokenizer,
    decoder,
    drain,
    lively_model,
    reciter,
)
from trimode.decoding import build
from trimode.engine.engine import Engine
from trimode.engine.request import Request
from trimode.numerics.sampling import Sampling

pytestmark = pytest.mark.medium

TOKENIZER = byte_tokenizer()
TEXT = "The cat sat. The cat ate, then slept."
every_mode = pytest.mark.parametrize("variant", VARIANTS)


def recite(variant: str, text: str, *, stop: tuple[str, ...] = (), **submitted: object) -> tuple[Request, list[str]]:
    """A text recited after a prompt of two tokens, and the pieces in which it was sent."""
    model = reciter(text, 2)
    engine = Engine(model, TOKENIZER)
    request = engine.submit([5, 6], decoder(variant, model.config), stop=stop, **submitted)
    pieces = []
    while not engine.is_idle:
        pieces += [event.text for event in engine.step()]
    assert request.text is not None
    assert "".join(pieces) == request.text.sent
    return request, pieces


@every_mode
def test_an_eos_ends_the_text_wherever_it_comes(variant: str) -> None:
    for n in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 20):
        request, _ = recite(variant, "x" * n)
        assert request.answer == (*TOKENIZER.encode("x" * n), EOS)
        assert request.finish == "stop"
        assert request.text is not None
        assert request.text.sent == "x" * n


@pytest.mark.parametrize("variant", [v for v, (mode, _) in VARIANTS.items() if mode != "diffusion"])
@pytest.mark.parametrize("guessed", [EOS, 9])
def test_a_wrongly_guessed_eos_or_a_missed_one_changes_no_verified_text(variant: str, guessed: int) -> None:
    model = ScriptedModel(lambda p: EOS if p == 2 + 13 else 7, lambda p: guessed)
    request = alone(model, variant, [5, 6])
    assert request.answer == (7,) * 13 + (EOS,)


@every_mode
def test_an_eos_in_the_prompt_ends_nothing(variant: str) -> None:
    model = ScriptedModel(lambda p: 7, lambda p: 7)
    for prompt in ([EOS], [EOS, 5, EOS], [5, EOS, EOS]):
        request = alone(model, variant, prompt, max_tokens=11)
        assert request.answer == (7,) * 11
        assert request.finish == "length"


@every_mode
@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_nothing_follows_the_first_eos_of_a_real_model(variant: str, temperature: float) -> None:
    ends = (2, 5, 9, 18, 21, 35, 36)
    finishes = set()
    for seed in range(4):
        model = lively_model(seed, eos_token_ids=ends)
        for prompt in ([4], [9, 5, 2], [30, 31, 32, 33]):
            request = alone(model, variant, prompt, max_tokens=12, sampling=Sampling(temperature=temperature))
            assert not set(request.answer[:-1]) & set(ends)
            assert request.finish == ("stop" if request.answer[-1] in ends else "length")
            finishes.add(request.finish)
    assert "stop" in finishes


@every_mode
@pytest.mark.parametrize("ends", [(), (2, 5), (2, 5, 9, 18, 21, 35, 36)])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=2.0, min_tokens=3)])
def test_ends_of_a_request_are_as_if_they_were_the_checkpoints(
    variant: str, ends: tuple[int, ...], sampling: Sampling
) -> None:
    own = lively_model(3, eos_token_ids=ends)
    other = lively_model(3, eos_token_ids=(7, 8))
    mode, options = VARIANTS[variant]
    for prompt in ([4], [9, 5, 2], [30, 31, 32, 33]):
        meant = alone(own, variant, prompt, max_tokens=16, sampling=sampling)
        engine = Engine(other)
        request = engine.submit(
            prompt, build(mode, other.config, ends=ends, **options), max_tokens=16, sampling=sampling, ends=ends
        )
        drain(engine)
        assert (request.answer, request.finish) == (meant.answer, meant.finish)
        assert request.counts.forwards == meant.counts.forwards


@every_mode
def test_max_tokens_is_exact(variant: str) -> None:
    model = lively_model(0, eos_token_ids=())
    for n in (1, 2, 3, 4, 5, 7, 8, 9, 20):
        request = alone(model, variant, [4, 9], max_tokens=n)
        assert len(request.answer) == n
        assert request.finish == "length"


@every_mode
def test_an_eos_as_the_last_allowed_token_is_a_stop(variant: str) -> None:
    request, _ = recite(variant, "abc", max_tokens=4)
    assert request.finish == "stop"
    request, _ = recite(variant, "abc", max_tokens=3)
    assert request.finish == "length"


@every_mode
def test_the_context_ends_the_text_exactly_and_no_row_stands_beyond_it(variant: str) -> None:
    positions: list[int] = []
    bounded = lively_model(0, eos_token_ids=(), context_length=24)
    model = Watched(bounded, lambda positions_T, _: positions.extend(positions_T.tolist()))
    for n_prompt in (23, 22, 20, 13):
        request = alone(model, variant, list(range(4, 4 + n_prompt)), max_tokens=1000)
        assert len(request.tokens) == 24
        assert request.finish == "length"
    assert max(positions) < 24


@every_mode
@pytest.mark.parametrize(
    "stop",
    [
        ("T",),
        ("The",),
        ("e cat",),
        ("sat. T",),
        ("slept.",),
        ("never",),
        ("cat ate", "cat"),
        ("at.", "cat sat"),
    ],
    ids=str,
)
def test_a_text_ends_before_a_stop_string_and_the_tokens_with_it(variant: str, stop: tuple[str, ...]) -> None:
    """A byte is a token: the last token is the one that completes the first stop string to be complete."""
    request, pieces = recite(variant, TEXT, stop=stop)
    complete = [TEXT.find(s) + len(s) for s in stop if s in TEXT]
    if not complete:
        assert request.text.sent == TEXT
        assert request.answer[-1] == EOS
        return
    n = min(complete)
    starts = [TEXT.find(s) for s in stop if s in TEXT[:n]]
    assert request.answer == tuple(TOKENIZER.encode(TEXT[:n]))
    assert request.text.sent == TEXT[: min(starts)]
    assert request.finish == "stop"
    assert not any(s in request.text.sent for s in stop)
    for upto in range(len(pieces)):
        assert request.text.sent.startswith("".join(pieces[:upto]))


@every_mode
def test_a_stop_string_of_many_bytes_or_half_met_is_held_back_and_given_out(variant: str) -> None:
    request, _ = recite(variant, "aab aaab aaa, ééè", stop=("aaac", "éèx"))
    assert request.text.sent == "aab aaab aaa, ééè"
    request, _ = recite(variant, "un été à l'ombre", stop=("té à",))
    assert request.text.sent == "un é"


@every_mode
def test_a_stop_string_in_the_prompt_ends_nothing(variant: str) -> None:
    prompt = TOKENIZER.encode("END and E")
    model = reciter("ND then END.", len(prompt))
    engine = Engine(model, TOKENIZER)
    request = engine.submit(prompt, decoder(variant, model.config), stop=("END",))
    while not engine.is_idle:
        engine.step()
    assert request.text.sent == "ND then "


@every_mode
@pytest.mark.parametrize("text", ["naïve café — 日本語 👩‍👩‍👧 ok", "👍🏽", "é", "日本"])
def test_characters_of_many_bytes_are_never_broken_in_the_stream(variant: str, text: str) -> None:
    request, pieces = recite(variant, text)
    assert request.text.sent == text
    assert not any("\ufffd" in piece for piece in pieces)


@every_mode
def test_half_a_character_at_the_length_limit_is_one_replacement_mark(variant: str) -> None:
    request, _ = recite(variant, "a日", max_tokens=3)
    assert request.text.sent == "a\ufffd"
    assert len(request.answer) == 3


@every_mode
def test_the_text_is_that_of_the_tokens_for_any_bytes(variant: str) -> None:
    for seed in range(2):
        model = lively_model(seed, vocab_size=BYTES, eos_token_ids=())
        engine = Engine(model, TOKENIZER)
        request = engine.submit([7, 8], decoder(variant, model.config), max_tokens=60)
        pieces = []
        while not engine.is_idle:
            pieces += [event.text for event in engine.step()]
        assert "".join(pieces) == TOKENIZER.decode(request.answer)


def test_events_carry_every_token_once() -> None:
    for variant in VARIANTS:
        model = lively_model(2)
        engine = Engine(model)
        request = engine.submit([4, 5, 6], decoder(variant, model.config), max_tokens=25)
        events = []
        while not engine.is_idle:
            events += engine.step()
        assert tuple(token for event in events for token in event.tokens) == request.answer
        assert [event.finish for event in events[:-1]] == [None] * (len(events) - 1)
        assert events[-1].finish == request.finish
        assert all(one.request == two.request == request.id for one, two in pairwise(events))
