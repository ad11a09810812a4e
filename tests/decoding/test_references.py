"""Every mode equals its slow, plain reference, token for token and forward for forward."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cache
from itertools import cycle, product
from typing import Any

import pytest

from tests.decoding import references
from tests.decoding.references import Answer, Eyes
from tests.fakes import drain, lively_model
from trimode.decoding import build
from trimode.decoding.self_speculation import PLACEMENTS
from trimode.engine.engine import Engine
from trimode.engine.request import Request
from trimode.models.transformer import Transformer
from trimode.numerics.sampling import Sampling

pytestmark = pytest.mark.medium

PROMPTS = ((1,), (5, 2, 9), (1, *range(20, 36)))
ENDS = ((), (2,), (2, 5, 9, 18, 21, 22, 35, 36))  # ids that end a text: none, one, so many that blocks hold several
MODELS = [lively_model(seed, eos_token_ids=ends) for seed, ends in product((0, 1, 2), ENDS)]
SHIFTED = [lively_model(seed, eos_token_ids=ends, canvas_logits="shifted") for seed, ends in product((0, 1), ENDS)]
WAYS = (Sampling(), Sampling(temperature=1.0, seed=7), Sampling(), Sampling(temperature=6.0, seed=8))
RULES = {
    "threshold 0": (0.0, None),
    "threshold 0.4": (0.4, None),
    "threshold 0.9": (0.9, None),
    "threshold above 1": (1.1, None),
    "threshold 0.9, 2 looks": (0.9, 2),
    "even quota": (None, None),
    "even quota, 3 looks": (None, 3),
}
SPECULATION: dict[str, dict[str, Any]] = {
    "as it comes": dict(),
    "one canvas": dict(max_canvases=1),
    "looked up": dict(lookup_length=3),
    "looked up, three canvases": dict(lookup_length=6, max_canvases=3, verify_above=0.3),
    "verify above 0.2": dict(verify_above=0.2),
    "fallback below 3": dict(fallback_below=3.0),
    "several looks": dict(draft_threshold=0.4, verify_above=0.01),
    "several looks and all else": dict(draft_threshold=0.3, verify_above=0.1, lookup_length=4, fallback_below=2.0),
    "anchor canvas": dict(anchor="canvas"),
    "anchor canvas, several looks": dict(anchor="canvas", draft_threshold=0.4, fallback_below=2.5, verify_above=0.1),
}


@cache
def eyes(model: Transformer, sampling: Sampling) -> Eyes:
    return Eyes(model, sampling)


def cases(
    order: int, models: Sequence[Transformer] = MODELS
) -> Iterator[tuple[int, int, tuple[int, ...], Transformer, Sampling]]:
    """Block sizes times lengths; prompts, models and ways to choose take turns, differently for each order."""
    turns = cycle(product(models, WAYS, PROMPTS))
    for block_size, max_tokens in product((1, 2, 5, 8), (1, 2, 7, 20)):
        for _ in range((5, 7, 11, 13, 17, 19, 23)[order]):  # no divisor of the number of turns
            model, sampling, prompt = next(turns)
        yield block_size, max_tokens, prompt, model, sampling


def ours(
    model: Transformer, mode: str, prompt: tuple[int, ...], max_tokens: int, sampling: Sampling, **options: object
) -> Request:
    engine = Engine(model)
    request = engine.submit(prompt, build(mode, model.config, **options), max_tokens=max_tokens, sampling=sampling)
    drain(engine)
    return request


def as_answer(request: Request) -> Answer:
    return Answer(request.answer, dict(request.counts.forwards), str(request.finish))


@pytest.mark.parametrize("order", range(3))
def test_autoregression_equals_its_reference(order: int) -> None:
    for _, max_tokens, prompt, model, sampling in cases(order):
        reference = references.ar(eyes(model, sampling), prompt, max_tokens)
        assert as_answer(ours(model, "ar", prompt, max_tokens, sampling)) == reference


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("anchor", ["fused", "canvas", "none"])
def test_diffusion_equals_its_reference(anchor: str, rule: str) -> None:
    threshold, steps = RULES[rule]
    for block_size, max_tokens, prompt, model, sampling in cases(order=list(RULES).index(rule)):
        reference = references.diffusion(
            eyes(model, sampling), prompt, max_tokens, block_size, anchor, threshold, steps
        )
        request = ours(
            model, "diffusion", prompt, max_tokens, sampling, block_size=block_size, anchor=anchor,
            confidence_threshold=threshold, max_denoising_steps=steps,
        )  # fmt: skip
        assert as_answer(request) == reference, (block_size, max_tokens, prompt)


@pytest.mark.parametrize("setting", SPECULATION)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_self_speculation_equals_its_reference(placement: str, setting: str) -> None:
    options = SPECULATION[setting]
    if options.get("anchor") == "canvas" and placement != "linear":
        return
    for draft_length, max_tokens, prompt, model, sampling in cases(order=list(SPECULATION).index(setting) % 7):
        for length in {draft_length, 3 + draft_length}:
            rule = references.Speculation(placement, length, **options)
            reference = references.self_speculation(eyes(model, sampling), prompt, max_tokens, rule)
            request = ours(
                model, "self_speculation", prompt, max_tokens, sampling,
                **asdict(rule),
            )  # fmt: skip
            assert as_answer(request) == reference, (length, max_tokens, prompt)


@pytest.mark.parametrize("lookup_length", [1, 3, 10])
def test_prompt_lookup_equals_its_reference(lookup_length: int) -> None:
    gained = 0
    for _, max_tokens, prompt, model, sampling in (*cases(lookup_length % 7), *cases(4)):
        rule = references.Speculation("none", 0, lookup_length=lookup_length)
        reference = references.prompt_lookup(eyes(model, sampling), prompt * 2, max_tokens, rule)
        request = ours(model, "prompt_lookup", prompt * 2, max_tokens, sampling, lookup_length=lookup_length)
        assert as_answer(request) == reference, (max_tokens, prompt)
        gained += len(request.answer) - request.counts.forwards.total()
    assert gained >= 3  # guesses were accepted


@pytest.mark.parametrize("anchor", ["fused", "canvas"])
def test_diffusion_reads_shifted_canvases_as_its_reference(anchor: str) -> None:
    for threshold, order in ((0.4, 0), (None, 1)):
        for block_size, max_tokens, prompt, model, sampling in cases(order, SHIFTED):
            reference = references.diffusion(eyes(model, sampling), prompt, max_tokens, block_size, anchor, threshold)
            request = ours(
                model, "diffusion", prompt, max_tokens, sampling, block_size=block_size, anchor=anchor,
                confidence_threshold=threshold,
            )  # fmt: skip
            assert as_answer(request) == reference, (block_size, max_tokens, prompt)


@pytest.mark.parametrize("setting", ["as it comes", "several looks and all else", "anchor canvas, several looks"])
def test_self_speculation_drafts_from_shifted_canvases_as_its_reference(setting: str) -> None:
    options = SPECULATION[setting]
    for placement in PLACEMENTS if "anchor" not in options else ("linear",):
        for draft_length, max_tokens, prompt, model, sampling in cases(2, SHIFTED):
            rule = references.Speculation(placement, draft_length, **options)
            reference = references.self_speculation(eyes(model, sampling), prompt, max_tokens, rule)
            request = ours(model, "self_speculation", prompt, max_tokens, sampling, **asdict(rule))
            assert as_answer(request) == reference, (draft_length, max_tokens, prompt)


def test_the_cases_reach_the_corners() -> None:
    """Tails, early ends, several looks at a block, drafts accepted in part: else the equalities above say little."""
    answers = [
        references.diffusion(eyes(model, sampling), prompt, max_tokens, block_size, "fused", 0.4)
        for block_size, max_tokens, prompt, model, sampling in cases(1)
    ]
    assert {answer.finish for answer in answers} == {"stop", "length"}
    assert sum(answer.forwards.get("denoise", 0) > answer.forwards.get("commit", 0) for answer in answers) >= 4
    for placement in PLACEMENTS:
        rule = references.Speculation(placement, 6, lookup_length=3)
        answers = [
            references.self_speculation(eyes(model, sampling), prompt, max_tokens, rule)
            for _, max_tokens, prompt, model, sampling in (*cases(0), *cases(1))
        ]
        gained = [len(answer.tokens) - sum(answer.forwards.values()) for answer in answers]
        assert max(gained) >= 3  # tokens more than forwards: guesses were accepted
        assert sum(answer.forwards.get("verify", 0) >= 5 for answer in answers) >= 3  # and refused
