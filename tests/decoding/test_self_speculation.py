"""Self-speculation is lossless, its forwards follow closed formulas, and poor drafts make room for plain steps."""

from collections import Counter
from dataclasses import replace
from itertools import groupby, product

import pytest

from tests.fakes import MASK, ScriptedModel, drain, lively_model
from trimode.api import completion
from trimode.decoding import build
from trimode.engine.engine import Engine
from trimode.engine.request import Request
from trimode.numerics.sampling import Sampling

TRUE, FALSE = 7, 8  # what the scripted model says, and a wrong guess
DRAFTS = (1, 2, 3, 4, 8, 32)
LENGTHS = (1, 2, 3, 4, 5, 9, 10, 33, 40)


def kinds_of(model: ScriptedModel, max_tokens: int, **options: object) -> tuple[Request, list[str]]:
    """One request, and the kind of every forward in order."""
    engine = Engine(model)
    request = engine.submit([5, 6], build("self_speculation", model.config, **options), max_tokens=max_tokens)
    kinds = []
    while not engine.is_idle:
        kinds += [event.kind for event in engine.step()]
    return request, kinds


@pytest.mark.parametrize("temperature", [0.0, 0.8, 5.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_speculation_writes_what_ar_writes_at_every_temperature(seed: int, temperature: float) -> None:
    model = lively_model(seed)
    sampling = Sampling(temperature=temperature, seed=11)
    prompts = ([5], [1, 9, 30, 2, 41], list(range(4, 60)))
    settings = [dict(draft_length=d, fallback_below=f) for d, f in product((*DRAFTS, None), (0.0, 3.0))]
    engine = Engine(model)
    for prompt in prompts:
        reference = engine.submit(prompt, build("ar", model.config), max_tokens=24, sampling=sampling)
        requests = [
            engine.submit(prompt, build("self_speculation", model.config, **s), max_tokens=24, sampling=sampling)
            for s in settings
        ]
        drain(engine)
        assert [request.answer for request in requests] == [reference.answer] * len(requests)
        assert {request.finish for request in requests} == {reference.finish}


@pytest.mark.parametrize("draft_length", DRAFTS)
def test_a_perfect_drafter_makes_a_draft_of_tokens_in_two_forwards(draft_length: int) -> None:
    """Three tokens are the least a cycle is worth starting for: one sure, one guessed, one behind the guess."""
    model = ScriptedModel(lambda p: TRUE, lambda p: TRUE)
    for n in LENGTHS:
        request, _ = kinds_of(model, n, draft_length=draft_length)
        cycles, rest = divmod(n - 1, draft_length) if draft_length > 2 else (0, n - 1)
        cycles, decodes = (cycles + 1, 0) if draft_length > 2 < rest else (cycles, rest)
        assert request.answer == (TRUE,) * n
        assert request.counts.forwards == +Counter(prefill=1, draft=cycles, verify=cycles, decode=decodes)


@pytest.mark.parametrize("draft_length", DRAFTS)
def test_a_hopeless_drafter_makes_two_tokens_in_two_forwards(draft_length: int) -> None:
    model = ScriptedModel(lambda p: TRUE, lambda p: FALSE)
    for n in LENGTHS:
        request, _ = kinds_of(model, n, draft_length=draft_length, fallback_below=0.0)
        cycles = max(n - 2, 0) // 2 if draft_length > 2 else 0
        decodes = n - 1 - 2 * cycles
        assert request.answer == (TRUE,) * n
        assert request.counts.forwards == +Counter(prefill=1, draft=cycles, verify=cycles, decode=decodes)


@pytest.mark.parametrize("n_right", range(7))
def test_a_cycle_makes_the_right_guesses_and_two_more(n_right: int) -> None:
    """Drafts of 8 guess 6; positions whose remainder by n_right + 2 is that of a cycle's end are foreseen wrongly."""
    period = n_right + 2
    start = 2 + 1  # the prompt's 2, and the prefill's token
    model = ScriptedModel(lambda p: TRUE, lambda p: FALSE if (p - start) % period == period - 1 else TRUE)
    request, kinds = kinds_of(model, 1 + 6 * period + 8, draft_length=8, fallback_below=0.0)
    assert kinds[:13] == ["prefill", *["draft", "verify"] * 6]
    assert request.counts.tokens["draft"] + request.counts.tokens["verify"] >= 6 * period
    assert len(model.calls) == len(kinds)
    assert model.calls[1:13] == [8, 7] * 6  # anchor and 7 masks; the sure token and 6 guesses


def test_plain_steps_after_poor_cycles_double_up_to_32() -> None:
    model = ScriptedModel(lambda p: TRUE, lambda p: FALSE)
    request, kinds = kinds_of(model, 150, draft_length=8)
    runs = [(kind, len(list(run))) for kind, run in groupby(kinds)]
    assert runs[:5] == [("prefill", 1), ("draft", 1), ("verify", 1), ("draft", 1), ("verify", 1)]
    assert [n for kind, n in runs if kind == "decode"][:5] == [4, 8, 16, 32, 32]
    assert all(n == 1 for kind, n in runs if kind != "decode")
    assert request.answer == (TRUE,) * 150


def test_a_good_cycle_ends_the_doubling() -> None:
    """Poor, poor, 4 plain, then a good cycle (positions 11 to 18), then poor again: it starts over from 4."""
    model = ScriptedModel(lambda p: TRUE, lambda p: TRUE if 11 <= p < 19 else FALSE)
    _, kinds = kinds_of(model, 60, draft_length=8)
    cycle, decode = ["draft", "verify"], ["decode"]
    expected = ["prefill", *cycle * 2, *decode * 4, *cycle, *cycle * 2, *decode * 4, *cycle, *decode * 8, *cycle,
                *decode * 16, *cycle]  # fmt: skip
    assert kinds[: len(expected)] == expected


def test_one_right_guess_a_cycle_is_not_poor_at_the_default() -> None:
    model = ScriptedModel(lambda p: TRUE, lambda p: TRUE if p % 3 == 1 else FALSE)
    _, kinds = kinds_of(model, 61, draft_length=8)
    assert "decode" not in kinds[:-2]


def test_fallback_zero_never_takes_a_plain_step() -> None:
    _, kinds = kinds_of(ScriptedModel(lambda p: TRUE, lambda p: FALSE), 101, draft_length=8, fallback_below=0.0)
    assert "decode" not in kinds[:-2]


@pytest.mark.parametrize("draft_length", [3, 8])
def test_acceptance_length_counts_the_verified_tokens_and_the_bonus(draft_length: int) -> None:
    cycles = 4
    perfect, _ = kinds_of(ScriptedModel(lambda p: TRUE, lambda p: TRUE), 1 + cycles * draft_length,
                          draft_length=draft_length)  # fmt: skip
    hopeless, _ = kinds_of(ScriptedModel(lambda p: TRUE, lambda p: FALSE), 1 + 2 * cycles + 2,
                           draft_length=draft_length, fallback_below=0.0)  # fmt: skip
    assert completion(perfect).acceptance_length == draft_length
    assert completion(hopeless).acceptance_length == 2.0
    assert completion(perfect).tokens_per_forward == (1 + cycles * draft_length) / (1 + 2 * cycles)


def test_a_drafts_first_mask_is_not_read_because_the_anchors_row_knows_better() -> None:
    decoder = build("self_speculation", lively_model().config, draft_length=5)
    state = decoder.start([4, 5], 40)
    span = decoder.plan(replace(state, started=True), [4, 5], 1, 2048)
    assert span.commit == (5,)
    assert span.read == (0,)
    assert span.canvases[0].tokens == (MASK,) * 4
    assert span.canvases[0].read == (1, 2, 3)
    assert span.canvases[0].draft
