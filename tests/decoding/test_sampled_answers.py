"""One promise for every sampling parameter: for one seed, what is verified is the text of `ar`, in any company.

And `ar` itself writes what a model without cache and a choice in loops write.
"""

from collections.abc import Sequence
from itertools import cycle, product

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.chance import surprise
from tests.decoding.references import Eyes
from tests.fakes import EOS, MASK, VARIANTS, ScriptedModel, alone, decoder, drain, lively_model
from tests.numerics import plain
from tests.numerics.plain import Place
from trimode.engine.engine import Engine
from trimode.engine.request import Request
from trimode.models.transformer import Transformer
from trimode.numerics.parameters import Sampling

pytestmark = pytest.mark.medium

END_THINK = 6
PROMPTS = ([5], [1, 9, 30, 2, 41, END_THINK], list(range(7, 40)))
PROMISING = [variant for variant, (mode, _) in VARIANTS.items() if mode != "diffusion"]
DRAFTING = [
    variant for variant in PROMISING if VARIANTS[variant][0] != "prompt_lookup"
]  # all its guesses are looked up
every_promise = pytest.mark.parametrize("variant", PROMISING)
every_mode = pytest.mark.parametrize("variant", VARIANTS)
WAYS: dict[str, dict[str, object]] = {
    "nothing": {},
    "top_k": dict(top_k=4),
    "top_p": dict(top_p=0.8),
    "min_p": dict(min_p=0.2),
    "cuts": dict(top_k=12, top_p=0.9, min_p=0.05),
    "repetition_penalty": dict(repetition_penalty=1.3),
    "presence_penalty": dict(presence_penalty=1.5),
    "frequency_penalty": dict(frequency_penalty=0.8),
    "logit_bias": dict(logit_bias={9: 3.0, 11: -100.0, 30: 1.5}),
    "banned": dict(banned_token_ids=list(range(10, 30))),
    "min_tokens": dict(min_tokens=9),
    "thinking": dict(max_thinking_tokens=7, end_think_token_id=END_THINK),
    "penalties": dict(repetition_penalty=0.8, presence_penalty=-0.5, frequency_penalty=1.1),
    "all": dict(top_k=20, top_p=0.95, min_p=0.02, repetition_penalty=1.2, presence_penalty=0.4, frequency_penalty=0.3,
                logit_bias={9: 2.0}, banned_token_ids=[30], min_tokens=6, max_thinking_tokens=5,
                end_think_token_id=END_THINK),
}  # fmt: skip
TEMPERATURES = (0.0, 0.7, 1.0, 1.5)
MODEL = lively_model(1, eos_token_ids=(2, 18, 35))


def written_plainly(model: Transformer, prompt: Sequence[int], max_tokens: int, sampling: Sampling) -> tuple[int, ...]:
    """Autoregression without a cache, each token chosen in loops."""
    eyes, tokens, eos = Eyes(model), list(prompt), model.config.eos_token_ids
    while len(tokens) < len(prompt) + max_tokens and not set(tokens[len(prompt) :]) & set(eos):
        place = Place(tokens, len(prompt), len(tokens), eos, MASK)
        logits = eyes.logits(tokens)[-1].double().tolist()
        tokens.append(plain.choice(logits, sampling, place))
    return tuple(tokens[len(prompt) :])


@pytest.mark.parametrize("way", WAYS)
def test_ar_writes_what_loops_over_the_vocabulary_write(way: str) -> None:
    for seed, (prompt, temperature) in enumerate(product(PROMPTS, TEMPERATURES)):
        sampling = Sampling(temperature=temperature, seed=seed, **WAYS[way])
        answer = alone(MODEL, "ar", prompt, max_tokens=14, sampling=sampling).answer
        assert answer == written_plainly(MODEL, prompt, 14, sampling)


@pytest.mark.medium
@every_promise
@pytest.mark.parametrize("temperature", [0.0, 1.0, *(pytest.param(t, marks=pytest.mark.slow) for t in (0.7, 1.5))])
def test_every_mode_that_promises_it_writes_what_ar_writes(variant: str, temperature: float) -> None:
    """Alone, and all ways together in one engine among requests of other modes, with few rows for a forward."""
    crowd = Engine(MODEL, max_rows=24, max_running=7)
    others = cycle(VARIANTS)
    pairs: list[tuple[Request, Request]] = []
    for seed, (way, prompt) in enumerate(product(WAYS, PROMPTS)):  # three prompts to a way
        sampling = Sampling(temperature=temperature, seed=seed % 4, **WAYS[way])
        expected = alone(MODEL, "ar", prompt, max_tokens=16, sampling=sampling)
        if seed % 3 == seed // 3 % 3:  # one of the three
            pairs.append((expected, alone(MODEL, variant, prompt, max_tokens=16, sampling=sampling)))
        request = crowd.submit(prompt, decoder(variant, MODEL.config), max_tokens=16, sampling=sampling)
        pairs.append((expected, request))
        crowd.submit(prompt, decoder(next(others), MODEL.config), max_tokens=9, sampling=sampling)
    drain(crowd)
    for expected, request in pairs:
        assert (request.answer, request.finish) == (expected.answer, expected.finish), request.sampling


def test_the_ways_reach_what_they_are_about() -> None:
    """Each changes the answer of some prompt, and drafts are accepted: else equality says little."""
    gained = 0
    for way in WAYS:
        if way == "nothing":
            continue
        changed = False
        for prompt, seed in product(PROMPTS, range(2)):
            sampled = [Sampling(temperature=0.7, seed=seed, **WAYS[name]) for name in (way, "nothing")]
            ours, usual = (alone(MODEL, "draft of 8", prompt, max_tokens=16, sampling=s) for s in sampled)
            changed |= ours.answer != usual.answer
            gained += ours.counts.tokens["verify"] - ours.counts.forwards["verify"]
        assert changed, way
    assert gained > 10


@every_mode
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_end_of_thinking_is_forced_where_the_budget_ends_and_only_there(variant: str, temperature: float) -> None:
    model = ScriptedModel(lambda p: 7 + p % 5, lambda p: 7 + p % 5)
    for budget in (*range(12), 19):
        sampling = Sampling(temperature=temperature, max_thinking_tokens=budget, end_think_token_id=END_THINK,
                            min_tokens=20)  # fmt: skip
        request = alone(model, variant, [5, END_THINK], max_tokens=20, sampling=sampling)
        assert request.answer[budget] == END_THINK
        if temperature == 0:
            expected = [END_THINK if i == budget else 7 + (2 + i) % 5 for i in range(20)]
            assert request.answer == tuple(expected)


@every_mode
def test_thinking_that_ended_by_itself_is_not_ended_again(variant: str) -> None:
    model = ScriptedModel(lambda p: END_THINK if p == 6 else 8, lambda p: END_THINK if p == 6 else 8)
    for budget in (9, 15) if VARIANTS[variant][0] == "diffusion" else (5, 6, 9, 15):  # slots of one look: each alone
        sampling = Sampling(max_thinking_tokens=budget, end_think_token_id=END_THINK)
        answer = alone(model, variant, [5, 5], max_tokens=20, sampling=sampling).answer
        assert [i for i, token in enumerate(answer) if token == END_THINK] == [4]


@pytest.mark.parametrize("variant", DRAFTING)
def test_a_forced_token_inside_a_burst_costs_no_draft(variant: str) -> None:
    """A drafter that is right elsewhere foresees the forced token as well: as many forwards as without a budget.

    What is looked up in a text of one token fits differently behind the forced one: then no more forwards.
    """
    model = ScriptedModel(lambda p: 8, lambda p: 8)
    usual = alone(model, variant, [5, 5], max_tokens=33)
    forced = alone(model, variant, [5, 5], max_tokens=33,
                   sampling=Sampling(max_thinking_tokens=12, end_think_token_id=END_THINK))  # fmt: skip
    assert forced.answer == (8,) * 12 + (END_THINK,) + (8,) * 20
    if VARIANTS[variant][1].get("lookup_length"):
        assert forced.counts.forwards.total() <= usual.counts.forwards.total()
    else:
        assert forced.counts.forwards == usual.counts.forwards


@every_mode
@pytest.mark.parametrize("guess", [EOS, 8])
def test_no_eos_comes_before_min_tokens_wherever_a_burst_begins(variant: str, guess: int) -> None:
    model = ScriptedModel(lambda p: EOS, lambda p: guess)
    for least in range(11):
        answer = alone(model, variant, [5], max_tokens=30, sampling=Sampling(min_tokens=least)).answer
        assert EOS not in answer[:least]
        assert len(answer) > least
        if VARIANTS[variant][0] != "diffusion":
            assert answer[least:] == (EOS,)


@every_mode
def test_banned_tokens_are_never_written(variant: str) -> None:
    for seed in range(3):
        free = alone(MODEL, variant, [5, 9], max_tokens=20, sampling=Sampling(temperature=1.0, seed=seed))
        banned = set(free.answer) - set(MODEL.config.eos_token_ids)
        sampling = Sampling(temperature=1.0, seed=seed, banned_token_ids=tuple(banned))
        assert not banned & set(alone(MODEL, variant, [5, 9], max_tokens=20, sampling=sampling).answer)


@every_mode
def test_a_budget_ends_with_the_text_and_the_context(variant: str) -> None:
    model = lively_model(0, eos_token_ids=(), context_length=24)
    sampling = Sampling(temperature=1.0, max_thinking_tokens=5, end_think_token_id=END_THINK, repetition_penalty=1.2)
    for n_prompt in (23, 19, 18, 17):
        request = alone(model, variant, list(range(7, 7 + n_prompt)), max_tokens=100, sampling=sampling)
        assert len(request.tokens) == 24
        if 24 - n_prompt > 5:
            assert END_THINK in request.answer[:6]


class Dice(ScriptedModel):
    """The next token has one distribution whatever came before; guesses are good, useless or adversarial."""

    def __init__(self, weights: Sequence[float], drafter: str) -> None:
        aim = {"good": lambda p: 7, "adversarial": lambda p: 11, "useless": lambda p: 4 + p % 8}[drafter]
        super().__init__(lambda p: 7, aim, lambda p: 0.6, vocab_size=12)
        self.weights = weights

    def logits(self, hidden_SD: Tensor) -> Tensor:
        out = super().logits(hidden_SD)
        for row, (_, is_canvas) in enumerate(hidden_SD.long().tolist()):
            if not is_canvas:
                out[row] = out.new_tensor(self.weights)
        return out


DICE = (-9.0, -9.0, -9.0, -9.0, 0.3, -0.4, 1.1, 1.6, 0.0, -1.0, 0.8, -2.0)


@pytest.mark.medium
@pytest.mark.parametrize("drafter", ["good", "useless", "adversarial"])
@pytest.mark.parametrize("variant", ["ar", "draft of 3", "draft of 8"])
@pytest.mark.parametrize("way", [dict(temperature=1.0), dict(temperature=0.7, top_k=5, top_p=0.9)], ids=str)
def test_written_tokens_follow_the_models_distribution(
    variant: str, drafter: str, way: dict[str, float]
) -> None:  # spec T8
    """Each place of the answer, in bursts too; and pairs of neighbours are independent, as the model says they are."""
    model = Dice(DICE, drafter)
    share = np.array(plain.distribution(list(DICE), Sampling(**way), Place([5], 1, 1, (EOS,), MASK)))
    engine, n = Engine(model), 500
    banned = dict(min_tokens=8)
    requests = [
        engine.submit([5], decoder(variant, model.config), max_tokens=8, sampling=Sampling(seed=seed, **way, **banned))
        for seed in range(n)
    ]
    drain(engine)
    answers = np.array([request.answer for request in requests])
    share[EOS] = 0
    share /= share.sum()
    ids = np.flatnonzero(share)
    for place in range(8):
        counts = np.bincount(answers[:, place], minlength=12)
        likely = ids[share[ids] * n > 5]
        rest = n - counts[likely].sum(), n * (1 - share[likely].sum())
        expected = share[likely] * n
        counts = counts[likely]
        if rest[1] > 1e-9:
            counts, expected = np.append(counts, rest[0]), np.append(expected, rest[1])
        assert surprise(counts, expected) < 3.7
    pairs = np.zeros((12, 12))
    np.add.at(pairs, (answers[:, :-1].ravel(), answers[:, 1:].ravel()), 1)
    expected = np.outer(share, share) * n * 7
    likely = expected > 5
    assert surprise(pairs[likely], expected[likely]) < 3.7


def test_diffusion_of_one_slot_follows_the_distribution_of_its_canvas() -> None:
    model = ScriptedModel(lambda p: 7, lambda p: 9, lambda p: 0.4, vocab_size=12)
    n, way = 2000, dict(temperature=0.7, top_k=9)
    logits = model.logits(torch.tensor([[1, 1]]))[0].tolist()
    share = np.array(plain.distribution(logits, Sampling(**way), Place([5], 1, 1, (EOS,), MASK)))
    tokens = [
        alone(model, "none", [5], max_tokens=1, sampling=Sampling(seed=seed, **way)).answer[0] for seed in range(n)
    ]
    counts = np.bincount(tokens, minlength=12)
    assert not counts[share == 0].any()
    assert surprise(counts[share > 0], share[share > 0] * n) < 3.3
