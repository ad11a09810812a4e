"""What a watcher sees: every slot's fate, consistent with the text, in every mode."""

from collections import Counter

import pytest

from tests.fakes import EOS, VARIANTS, ScriptedModel, byte_tokenizer, decoder, lively_model, reciter
from trimode.decoding import build
from trimode.engine.engine import Engine
from trimode.engine.events import Event
from trimode.engine.viewing import spelled

PROMPT = [5, 9, 6, 7, 8, 5, 9, 6]
TRUE = 11


def watched(engine: Engine) -> list[Event]:
    """The events of the requests that were submitted, to the last."""
    events = []
    while not engine.is_idle:
        events += engine.step()
    return events


@pytest.mark.medium
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_slots_tell_the_same_story_as_the_text(variant: str, seed: int) -> None:
    model = lively_model(seed)
    engine = Engine(model, byte_tokenizer())
    request = engine.submit(PROMPT, decoder(variant, model.config), max_tokens=40, watch=True)
    answer: list[int] = []
    before: dict[int, int | None] = {}
    for number, event in enumerate(watched(engine), start=1):
        view = event.view
        assert view and event.named is not None
        assert view.forwards == number and view.step >= 1
        assert [named.token for named in event.named] == list(event.tokens)
        settled, failed = view.settled[: len(event.tokens)], view.settled[len(event.tokens) :]
        assert [(slot.position, slot.token) for slot in settled] == list(enumerate(event.tokens, start=len(answer)))
        assert {slot.state for slot in settled} <= {"accepted", "revised", "fixed"}
        assert all(slot.state == "rejected" for slot in failed)
        replaced = {slot.position: slot.token for slot in failed}
        for slot in settled:
            assert (slot.state == "revised") == (replaced.get(slot.position, slot.token) != slot.token)
            assert slot.confidence is not None
        assert all(before.get(slot.position, slot.token) == slot.token for slot in failed)
        answer += event.tokens
        for place, slot in enumerate(view.canvas):
            assert slot.position == len(answer) + place
            assert (slot.token is None) == (slot.state in ("masked", "remasked")) == (slot.confidence is None)
            assert (slot.cause is not None) == (slot.state == "remasked")
            old = None if event.tokens else before.get(slot.position)
            assert (slot.state == "remasked") == (slot.token is None and old is not None)
            assert (slot.state == "revised") == (slot.token is not None and old not in (None, slot.token))
        before = {slot.position: slot.token for slot in view.canvas}
    assert answer == list(request.answer)


def test_a_guess_that_fails_takes_those_behind_it_along() -> None:
    """Guesses are right but at every fifth place."""
    model = ScriptedModel(lambda p: TRUE + p % 3, lambda p: 40 if p % 5 == 4 else TRUE + p % 3, lambda p: 0.8)
    engine = Engine(model)
    options = dict(placement="linear", draft_length=8, verify_above=0.0, fallback_below=0.0, lookup_length=0)
    engine.submit([5], build("self_speculation", model.config, **options), max_tokens=20, watch=True)
    first, second, third, *_ = watched(engine)
    assert first.view and second.view and third.view
    assert (first.kind, second.kind, third.kind) == ("prefill", "verify", "draft")
    assert second.view.canvas == ()
    assert [(slot.position, slot.state) for slot in first.view.settled] == [(0, "fixed")]
    drafted = [(slot.position, slot.token, slot.state) for slot in first.view.canvas]
    assert drafted == [(p - 1, 40 if p % 5 == 4 else TRUE + p % 3, "draft") for p in range(2, 9)]
    assert all(slot.confidence == pytest.approx(0.8) for slot in first.view.canvas)
    settled, failed = second.view.settled[:3], second.view.settled[3:]
    assert [slot.state for slot in settled] == ["accepted", "accepted", "revised"]
    assert [slot.confidence for slot in settled] == [pytest.approx(0.99)] * 3
    assert [(slot.position, slot.token, "draft") for slot in failed] == drafted[2:]
    assert [slot.confidence for slot in failed] == [pytest.approx(0.8)] * 5
    assert second.tokens == tuple(TRUE + p % 3 for p in (2, 3, 4))
    assert [view.step for view in (first.view, second.view, third.view)] == [1, 1, 1]


def test_a_doubted_slot_is_told_with_its_cause_and_draft_until_nothing_changes_it() -> None:
    model = lively_model(3)
    states: Counter[str] = Counter()
    for seed in range(4):
        engine = Engine(model)
        options = dict(block_size=6, confidence_threshold=0.2, remask="low_confidence", remask_below=0.9)
        engine.submit([5 + seed, 9], build("diffusion", model.config, **options), max_tokens=40, watch=True)
        views = [event.view for event in watched(engine)]
        states.update(slot.state for view in views if view for slot in view.canvas)
        assert all(s.cause == "low_confidence" for v in views if v for s in v.canvas if s.state == "remasked")
    assert states["remasked"] and states["draft"] and states["fixed"] and states["masked"]


def test_steps_count_the_looks_at_a_block() -> None:
    model = ScriptedModel(lambda p: TRUE, lambda p: TRUE, lambda p: 0.3)
    engine = Engine(model)
    options = dict(block_size=6, confidence_threshold=None, max_denoising_steps=3)
    engine.submit([5, 6], build("diffusion", model.config, **options), max_tokens=12, watch=True)
    views = [event.view for event in watched(engine)]
    assert [view.step for view in views if view] == [1, 2, 3] * 2
    assert [[slot.state for slot in view.canvas].count("fixed") for view in views if view] == [2, 4, 0] * 2


def test_characters_of_several_tokens_stand_with_their_last() -> None:
    tokenizer = byte_tokenizer()
    text = "a — ü"
    tokens = tokenizer.encode(text)
    assert len(tokens) == 8
    assert spelled(tokens, [], tokenizer) == ["a", " ", "", "", "—", " ", "", "ü"]
    cut: list[int | None] = [*tokens[:3], None, *tokens[4:]]
    assert spelled(cut, tokens, tokenizer) == ["a", " ", "\ufffd", "", "", "\ufffd ", "", "ü"]
    assert spelled(tokens[3:], tokens[:3], tokenizer)[:2] == ["", "—"]
    assert spelled([5, None], [], None) == ["", ""]


def test_a_watched_text_is_spelled_slot_by_slot() -> None:
    text = "naïve café"
    model = reciter(text, 2)
    engine = Engine(model, byte_tokenizer())
    engine.submit([5, 6], build("diffusion", model.config, block_size=14), max_tokens=14, watch=True)
    (event, *_) = watched(engine)
    assert event.finish == "stop" and event.text == text and event.tokens[-1] == EOS
    engine = Engine(reciter(text, 2, sure=0.5), byte_tokenizer())
    options = dict(block_size=14, rule="leftmost", max_denoising_steps=3)
    engine.submit([5, 6], build("diffusion", model.config, **options), max_tokens=14, watch=True)
    views = [event.view for event in watched(engine)]
    assert views[0] and "".join(slot.text for slot in views[0].canvas) == "naïv"
