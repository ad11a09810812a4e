"""Forwards by kind sum to the total, and tokens per forward mean what the documentation says."""

from itertools import product

import pytest

from tests.fakes import EOS, VARIANTS, ScriptedModel, Watched, alone, decoder, drain, lively_model
from trimode.api import completion
from trimode.decoding import build
from trimode.engine.engine import Engine
from trimode.engine.request import Counts
from trimode.spans import KINDS

pytestmark = pytest.mark.medium

# drafts committed behind their anchors, if there are any: every forward makes at least one token
COMMITTED = [
    name
    for name, (mode, options) in VARIANTS.items()
    if mode in ("self_speculation", "prompt_lookup")
    and options.get("anchor") != "canvas"
    and not options.get("draft_threshold")
]
OWN_KINDS = {
    "ar": {"prefill", "decode"},
    "diffusion": {"prefill", "denoise", "commit"},
    "self_speculation": {"prefill", "decode", "draft", "verify"},
    "prompt_lookup": {"prefill", "decode", "verify"},
    "auto": {"prefill", "decode", "draft", "verify"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_forwards_by_kind_sum_to_the_total(variant: str) -> None:
    model = lively_model(1)
    for prompt, max_tokens in (([5], 1), ([9, 8], 2), ([30] * 9, 17), (list(range(4, 40)), 30)):
        request = alone(model, variant, prompt, max_tokens=max_tokens)
        answer = completion(request)
        kinds = {kind: n for kind, n in answer.forwards.items() if kind != "total"}
        assert set(kinds) <= OWN_KINDS[answer.mode] <= set(KINDS)
        assert all(n > 0 for n in kinds.values())
        assert sum(kinds.values()) == answer.forwards["total"]
        assert kinds["prefill"] == 1
        assert answer.tokens_per_forward == answer.completion_tokens / answer.forwards["total"]
        assert answer.completion_tokens == len(answer.token_ids) == len(request.answer)
        assert answer.prompt_tokens == len(prompt)


@pytest.mark.parametrize("max_rows", [1, 5, 2048])
def test_ar_makes_exactly_one_token_per_forward(max_rows: int) -> None:
    model = lively_model(1)
    for prompt in ([5], [30] * 9, list(range(4, 40))):
        for max_tokens in (1, 2, 30):
            engine = Engine(model, max_rows=max_rows)
            request = engine.submit(prompt, decoder("ar", model.config), max_tokens=max_tokens)
            drain(engine)
            assert completion(request).tokens_per_forward == 1.0


@pytest.mark.parametrize("variant", VARIANTS)
def test_tokens_are_counted_with_the_forward_that_made_them(variant: str) -> None:
    request = alone(lively_model(1), variant, [5, 6], max_tokens=23)
    assert request.counts.tokens.total() == len(request.answer)
    assert set(+request.counts.tokens) <= set(request.counts.forwards)


def test_acceptance_length_is_none_where_nothing_was_verified() -> None:
    model = lively_model(1)
    assert completion(alone(model, "ar", [5], max_tokens=9)).acceptance_length is None
    assert completion(alone(model, "fused", [5], max_tokens=9)).acceptance_length is None
    assert completion(alone(model, "draft of 8", [5], max_tokens=1)).acceptance_length is None
    assert 1 <= completion(alone(model, "draft of 8", [5], max_tokens=9)).acceptance_length <= 8


@pytest.mark.parametrize("variant", VARIANTS)
def test_acceptance_by_place_adds_up_to_the_acceptance_length(variant: str) -> None:
    """The endless text drops no surplus. The other may end at a guess that held: then its bonus is not in the text."""
    for ends, seed in product(((), (2, 18, 35)), range(3)):
        request = alone(lively_model(seed, eos_token_ids=ends), variant, [5, 6, 5, 6], max_tokens=40)
        answer, n_forwards = completion(request), request.counts.forwards["verify"]
        assert (answer.acceptance is None) == (answer.acceptance_length is None) == (not n_forwards)
        if answer.acceptance is not None:
            verified, reached, accepted = zip(*answer.acceptance, strict=True)
            assert verified[0] == n_forwards
            assert list(verified) == sorted(verified, reverse=True)
            assert list(accepted) == sorted(accepted, reverse=True)
            assert all(a <= r <= v for v, r, a in answer.acceptance)
            assert reached[0] == n_forwards
            assert all(r <= a for r, a in zip(reached[1:], accepted, strict=False))
            bonus_dropped = sum(accepted) + n_forwards - request.counts.tokens["verify"]
            assert 0 <= bonus_dropped <= (answer.finish_reason == "stop")
            if not bonus_dropped:
                assert answer.acceptance_length == pytest.approx(1 + sum(accepted) / n_forwards)


@pytest.mark.parametrize("placement", ["linear", "chained", "quadratic"])
def test_all_guesses_of_a_perfect_drafter_are_accepted_and_none_of_a_hopeless_one(placement: str) -> None:
    for guess, n_held in ((7, 1), (8, 0)):
        model = ScriptedModel(lambda p: 7, lambda p, guess=guess: guess, lambda p: 0.9)
        speculator = build("self_speculation", model.config, placement=placement, draft_length=4, lookup_length=0,
                           verify_above=0.0, fallback_below=0.0)  # fmt: skip
        engine = Engine(model)
        request = engine.submit([5, 6], speculator, max_tokens=41)
        drain(engine)
        acceptance = completion(request).acceptance
        assert acceptance is not None
        assert len(acceptance) == 3  # a draft of 4 is the anchor and three guesses
        n_forwards = request.counts.forwards["verify"]
        assert acceptance[0] == (n_forwards, n_forwards, n_held * n_forwards)
        assert all(accepted == n_held * verified for verified, _, accepted in acceptance)
        assert all(reached == n_held * verified for verified, reached, _ in acceptance[1:])


def test_guesses_beyond_the_end_of_a_text_are_not_judged() -> None:
    """Of fifteen right guesses the fourth is an EOS."""
    model = ScriptedModel(*[lambda p: EOS if p == 6 else 7] * 2)
    chained = build("self_speculation", model.config, placement="chained", draft_length=16, lookup_length=0,
                    verify_above=0.0, fallback_below=0.0)  # fmt: skip
    engine = Engine(model)
    request = engine.submit([5, 6], chained, max_tokens=40)
    drain(engine)
    assert request.answer == (7, 7, 7, 7, EOS)
    assert completion(request).acceptance == ((1, 1, 1),) * 4


def test_guesses_behind_a_wrong_one_that_stood_where_the_text_ends_are_not_judged_either() -> None:
    """Of fifteen guesses the third is wrong: an EOS belongs there."""
    model = ScriptedModel(lambda p: EOS if p == 5 else 7, lambda p: 7)
    chained = build("self_speculation", model.config, placement="chained", draft_length=16, lookup_length=0,
                    verify_above=0.0, fallback_below=0.0)  # fmt: skip
    engine = Engine(model)
    request = engine.submit([5, 6], chained, max_tokens=40)
    drain(engine)
    assert request.answer == (7, 7, 7, EOS)
    assert completion(request).acceptance == ((1, 1, 1), (1, 1, 1), (1, 1, 0))


def test_a_guess_is_reached_where_all_before_it_held() -> None:
    """Drafts of 5, 2 and 4 guesses, of which 3, 2 and 0 hold."""
    counts = Counts()
    for n_guesses, n_held in ((5, 3), (2, 2), (4, 0)):
        counts.add_guesses(n_guesses, n_held + 1)
    assert [counts.verified[i] for i in range(5)] == [3, 3, 2, 2, 1]
    assert [counts.reached[i] for i in range(5)] == [3, 2, 1, 1, 0]
    assert [counts.accepted[i] for i in range(5)] == [2, 2, 1, 0, 0]


@pytest.mark.parametrize("variant", VARIANTS)
def test_only_parts_of_the_prompt_go_uncounted(variant: str) -> None:
    """With few rows a finished block may be committed in parts, too: those are forwards of the answer."""
    model = lively_model(0, eos_token_ids=())
    for max_rows in (4, 10, 2048):
        fed: list[int] = []
        engine = Engine(Watched(model, lambda positions_T, _, fed=fed: fed.append(len(positions_T))), max_rows=max_rows)
        request = engine.submit(list(range(4, 34)), decoder(variant, model.config), max_tokens=40)
        drain(engine)
        counts = request.counts
        assert counts.forwards.total() + counts.prefill_parts == len(fed)
        assert counts.prefill_parts <= 30 // max_rows + 1


@pytest.mark.parametrize("variant", COMMITTED)
def test_what_is_verified_never_needs_more_forwards_than_ar(variant: str) -> None:
    for seed in range(4):
        for max_tokens in (1, 2, 3, 9, 23):
            request = alone(lively_model(seed), variant, [5, 6], max_tokens=max_tokens)
            assert request.counts.forwards.total() <= len(request.answer)
