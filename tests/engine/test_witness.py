"""Log-probabilities are those of the rows that chose the tokens, in every mode, whatever shares the forwards."""

import math
from typing import Any

import pytest
import torch

from tests.fakes import MASK, VARIANTS, ScriptedModel, alone, decoder, drain, lively_model
from trimode.api import completion
from trimode.decoding import build
from trimode.engine.engine import Engine
from trimode.engine.request import Request
from trimode.engine.runner import Job, run
from trimode.errors import InvalidInput
from trimode.numerics.sampling import Sampling
from trimode.spans import Span

pytestmark = pytest.mark.medium
PROMPT = [5, 9, 6, 7, 8, 5, 9, 6]
CAUSAL = [name for name, (mode, _) in VARIANTS.items() if mode != "diffusion"]


def reference(model: Any, tokens: list[int]) -> torch.Tensor:
    """Log-probabilities over the vocabulary behind each token, from one causal forward without a cache's past."""
    cache, found = model.new_cache(len(tokens)), []
    real = model.logits

    class Listening:
        def __getattr__(self, name: str) -> Any:
            return getattr(model, name)

        def __call__(self, *given: Any, **named: Any) -> Any:
            return model(*given, **named)

        def logits(self, hidden: torch.Tensor) -> torch.Tensor:
            found.append(real(hidden).log_softmax(-1))
            return found[-1]

    span = Span(commit=tuple(tokens), read=tuple(range(len(tokens))), kind="prefill")
    run(Listening(), [Job(span=span, cache=cache, sampling=Sampling())])
    return found[0]


@pytest.mark.parametrize("variant", CAUSAL)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_causal_modes_tell_what_one_forward_over_the_text_tells(variant: str, temperature: float) -> None:
    model = lively_model(1)
    request = alone(model, variant, PROMPT, max_tokens=25, logprobs=5, sampling=Sampling(temperature=temperature))
    done, expected = completion(request), reference(model, request.tokens)
    assert done.logprobs is not None
    for place, (token, named) in enumerate(zip(done.token_ids, done.logprobs, strict=True), len(PROMPT) - 1):
        row = expected[place].clone()
        row[MASK] = -math.inf
        assert named.token == token and named.rank is None
        assert named.logprob == pytest.approx(row[token].item(), abs=1e-4)
        assert [lp for _, lp in named.best] == pytest.approx(row.topk(5).values.tolist(), abs=1e-4)
        assert all(row[t].item() == pytest.approx(lp, abs=1e-4) for t, lp in named.best)


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_token_has_the_probability_of_the_row_that_chose_it(variant: str) -> None:
    """The scripted rows name themselves by their confidence: causal ones 0.99, a canvas slot at p that of `sure(p)`."""

    def sure(position: int) -> float:
        return 0.5 + 0.4 * ((position * 7) % 11) / 11

    mode, options = VARIANTS[variant]
    model = ScriptedModel(lambda p: 10 + p % 40, lambda p: 10 + p % 40, sure)
    done = completion(alone(model, variant, [5, 6], max_tokens=30, logprobs=0))
    assert done.logprobs is not None and len(done.logprobs) == 30
    for place, named in enumerate(done.logprobs, start=2):
        assert named.token == 10 + place % 40 and named.best == ()
        expected = {0.99} if mode != "diffusion" else {0.99, sure(place)} if not options.get("ar_weight") else None
        told = math.exp(named.logprob)
        assert expected is None or any(told == pytest.approx(one) for one in expected), (variant, place)
    if mode == "diffusion" and not options.get("ar_weight"):
        causal = [round(math.exp(n.logprob), 4) == 0.99 for n in done.logprobs]
        width = options.get("block_size", model.config.block_size)
        anchored = options.get("anchor") != "none"
        assert causal == [anchored and place % width == 0 for place in range(30)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_to_be_seen_changes_no_token_and_no_forward(variant: str) -> None:
    for seed in range(2):
        model = lively_model(seed)
        plain = alone(model, variant, PROMPT, max_tokens=40)
        for asked in (dict(logprobs=3), dict(watch=True), dict(prompt_logprobs=2)):
            seen = alone(model, variant, PROMPT, max_tokens=40, **asked)
            assert seen.answer == plain.answer
            assert seen.counts.forwards == plain.counts.forwards


def test_the_prompt_is_scored_whatever_cuts_the_forwards() -> None:
    model = lively_model(1)
    expected = reference(model, PROMPT)
    for max_rows in (1, 3, 8, 2048):
        engine = Engine(model, max_rows=max_rows)
        config = model.config
        asked = engine.submit(PROMPT, decoder("ar", config), max_tokens=5, prompt_logprobs=2)
        other = engine.submit([7, 7, 7], decoder("draft of 3", config), max_tokens=9)
        engine.step()
        engine.preempt(asked)
        drain(engine)
        told = completion(asked).prompt_logprobs
        assert completion(other).prompt_logprobs is None and completion(asked).logprobs is None
        assert told is not None and told[0] is None and len(told) == len(PROMPT)
        for place, named in enumerate(told[1:], start=1):
            assert named is not None and named.token == PROMPT[place]
            row = expected[place - 1].clone()
            assert named.logprob == pytest.approx(row[named.token].item(), abs=1e-4)
            assert named.rank == 1 + int((row > row[named.token]).sum())
            row[MASK] = -math.inf
            assert [lp for _, lp in named.best] == pytest.approx(row.topk(2).values.tolist(), abs=1e-4)


def test_a_token_without_any_probability_is_told_as_a_number() -> None:
    model = ScriptedModel(lambda p: 10, lambda p: 10)
    model.logits = lambda hidden: torch.full((len(hidden), 61), -1e6).index_fill(1, torch.tensor([10]), 0.0)  # type: ignore[method-assign]
    request = alone(model, "ar", [5, 6], max_tokens=2, logprobs=3, prompt_logprobs=1)
    named = completion(request).prompt_logprobs
    assert named is not None and named[1] is not None
    assert named[1].logprob == -9999.0 and named[1].rank == 2
    assert [lp for _, lp in completion(request).logprobs[0].best] == [0.0, -9999.0, -9999.0]  # type: ignore[index]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (dict(logprobs=21), "logprobs is 21, allowed is 0 to 20"),
        (dict(logprobs=True), "logprobs is True"),
        (dict(prompt_logprobs=-1), "prompt_logprobs is -1"),
    ],
)
def test_what_cannot_be_told_is_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        alone(lively_model(), "ar", PROMPT, **asked)


def test_a_prompt_of_blocks_that_see_both_ways_is_not_scored() -> None:
    model = lively_model(commit_visibility="block", block_size=4)

    def asking() -> Request:
        engine = Engine(model)
        return engine.submit(PROMPT, build("diffusion", model.config), prompt_logprobs=0)

    with pytest.raises(InvalidInput, match="prompt_logprobs needs a checkpoint"):
        asking()
