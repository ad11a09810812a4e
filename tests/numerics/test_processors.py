"""Whole batches of rows are chosen as one row at a time is, and as transformers' processors say."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers.generation import logits_process as theirs

from tests.chance import surprise
from tests.numerics import plain
from tests.numerics.plain import Place
from trimode.numerics.parameters import Sampling
from trimode.numerics.processors import History, Shape, shaped, truncated
from trimode.numerics.sampling import Draw, draw, pick

V, MASK, ENDS, END_THINK = 12, 3, (2, 7), 5
IDS = st.integers(0, V - 1)
SOME = st.sampled_from


def ways() -> st.SearchStrategy[Sampling]:
    """Every parameter off or on, in every combination."""
    return st.builds(
        Sampling,
        temperature=SOME((0.0, 0.7, 1.0, 1.5)), seed=st.integers(0, 9), top_k=SOME((0, 0, 1, 3, 8, 12, 40)),
        top_p=SOME((1.0, 1.0, 0.03, 0.3137, 0.777, 0.95)), min_p=SOME((0.0, 0.0, 0.05, 0.3, 1.0)),
        repetition_penalty=SOME((1.0, 1.0, 0.5, 1.3)), presence_penalty=SOME((0.0, 0.0, -1.1, 0.7)),
        frequency_penalty=SOME((0.0, 0.0, -0.4, 1.3)), banned_token_ids=SOME(((), (), (0, 6, 11))),
        logit_bias=SOME(((), (), ((1, -100.0), (4, 2.5), (MASK, 50.0)))), min_tokens=SOME((0, 0, 2, 5)),
        max_thinking_tokens=SOME((None, None, 0, 2)), end_think_token_id=st.just(END_THINK),
    )  # fmt: skip


def places() -> st.SearchStrategy[Place]:
    def place(context: list[int], n_prompt: int, look: int) -> Place:
        return Place(context, min(n_prompt, len(context)), len(context), ENDS, MASK, look)

    return st.builds(place, st.lists(IDS.filter(lambda t: t != MASK), min_size=1, max_size=9), st.integers(1, 6),
                     st.integers(0, 2))  # fmt: skip


def logits_rows() -> st.SearchStrategy[list[float]]:
    """Quarters, so that equals are frequent."""
    return st.lists(st.integers(-12, 12).map(lambda n: n / 4), min_size=V, max_size=V)


def asked(sampling: Sampling, place: Place) -> Draw:
    history = History.of(place.context, place.n_prompt)
    shape = Shape(sampling=sampling, position=place.position, n_prompt=place.n_prompt, eos_token_ids=ENDS,
                  history=history, length=len(place.context))  # fmt: skip
    return draw(sampling, place.position, place.look, shape=shape if sampling.is_shaped else None)


def picked(rows: Sequence[tuple[list[float], Sampling, Place]]) -> list[int]:
    logits_SV = torch.tensor([logits for logits, *_ in rows], dtype=torch.float64)
    draws = [asked(sampling, place) for _, sampling, place in rows]
    return pick(logits_SV, draws, torch.tensor([MASK])).token_S.tolist()


@pytest.mark.medium
@given(st.lists(st.tuples(logits_rows(), ways(), places()), min_size=1, max_size=6))
def test_a_batch_is_chosen_as_row_by_row_in_loops(rows: list[tuple[list[float], Sampling, Place]]) -> None:
    expected = [plain.choice(logits, sampling, place) for logits, sampling, place in rows]
    assert picked(rows) == expected


@given(logits_rows(), ways(), places())
def test_probabilities_are_those_of_the_loops(logits: list[float], sampling: Sampling, place: Place) -> None:
    """The numbers themselves, not only what they lead to."""
    drawn = asked(sampling, place)
    logits_RV = torch.tensor([logits]).double()
    logits_RV[:, MASK] = -math.inf
    ours = shaped(logits_RV, [drawn.shape])
    assert ours[0].tolist() == pytest.approx(plain.processed(logits, sampling, place) if drawn.shape else logits_RV[0])
    if sampling.temperature > 0:
        heat = torch.tensor([sampling.temperature]).double()
        p = (truncated(ours, heat, [sampling]) / heat).softmax(-1)[0]
        assert p.tolist() == pytest.approx(plain.distribution(logits, sampling, place))


@pytest.mark.medium
@given(st.lists(st.tuples(logits_rows(), ways(), places()), min_size=2, max_size=6))
def test_a_row_is_chosen_alike_alone_and_among_others(rows: list[tuple[list[float], Sampling, Place]]) -> None:
    assert picked(rows) == [picked([row])[0] for row in rows]


def some_logits(rows: int = 40) -> Tensor:
    return 3 * torch.randn(rows, 50, generator=torch.Generator().manual_seed(2)).double()


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
@pytest.mark.parametrize(
    "cuts",
    [dict(top_k=5), dict(top_p=0.8), dict(min_p=0.1), dict(top_k=9, top_p=0.9), dict(top_k=20, top_p=0.95, min_p=0.2)],
    ids=str,
)
def test_cuts_leave_what_those_of_transformers_leave(temperature: float, cuts: dict[str, float]) -> None:
    logits = some_logits()
    way = Sampling(temperature=temperature, **cuts)
    expected = theirs.TemperatureLogitsWarper(temperature)(None, logits)
    if "top_k" in cuts:
        expected = theirs.TopKLogitsWarper(cuts["top_k"])(None, expected)
    if "top_p" in cuts:
        expected = theirs.TopPLogitsWarper(cuts["top_p"])(None, expected)
    if "min_p" in cuts:
        expected = theirs.MinPLogitsWarper(cuts["min_p"])(None, expected)
    ours = truncated(logits, torch.full((40,), temperature).double(), [way] * 40)
    assert torch.equal(ours.isinf(), expected.isinf())
    assert 1 < (~ours.isinf()).sum(-1).double().mean() < 30


def test_bias_penalty_and_bans_are_those_of_transformers_in_their_order() -> None:
    logits = some_logits()
    context = torch.randint(0, 50, (40, 15), generator=torch.Generator().manual_seed(4))
    bias, banned, ends = ((4, -3.0), (9, 2.5), (30, 100.0)), (7, 8), (2, 11)
    expected = theirs.SequenceBiasLogitsProcessor([[[t], b] for t, b in bias])(context, logits.clone())
    expected = theirs.RepetitionPenaltyLogitsProcessor(1.4)(context, expected)
    expected = theirs.SuppressTokensLogitsProcessor(banned, device="cpu")(context, expected)
    expected = theirs.MinNewTokensLengthLogitsProcessor(6, 10, list(ends), device="cpu")(context, expected)
    way = Sampling(repetition_penalty=1.4, logit_bias=bias, banned_token_ids=banned, min_tokens=10)
    shapes = [
        Shape(sampling=way, position=15, n_prompt=6, eos_token_ids=ends, history=History.of(row, 6), length=15)
        for row in context.tolist()
    ]
    assert torch.allclose(shaped(logits, shapes), expected, rtol=1e-12)


def test_a_row_looks_back_on_its_own_beginning_of_a_shared_text() -> None:
    tokens, n_prompt = [4, 4, 9, 1, 9, 9, 6], 2
    history, way = History.of(tokens, n_prompt), Sampling(frequency_penalty=1.0, repetition_penalty=2.0)
    shapes = [
        Shape(sampling=way, position=n, n_prompt=n_prompt, eos_token_ids=(), history=history, length=n)
        for n in range(2, 8)
    ]
    ours = shaped(torch.ones(6, V), shapes)
    for n, row in zip(range(2, 8), ours.tolist(), strict=True):
        assert row == plain.processed([1.0] * V, way, Place(tokens[:n], n_prompt, n))


def test_a_nucleus_wider_than_usual_is_found_as_well() -> None:
    logits = torch.randn(3, 1000, generator=torch.Generator().manual_seed(1)).double()
    for top_p in (0.1, 0.5, 0.9, 0.999):
        ours = truncated(logits, torch.ones(3).double(), [Sampling(temperature=1.0, top_p=top_p)] * 3)
        assert torch.equal(ours.isinf(), theirs.TopPLogitsWarper(top_p)(None, logits).isinf())


@pytest.mark.medium
@pytest.mark.parametrize(
    "way",
    [dict(top_k=3), dict(top_p=0.6), dict(min_p=0.3), dict(top_k=4, top_p=0.9, min_p=0.2, repetition_penalty=1.7),
     dict(logit_bias=((1, 2.0),), presence_penalty=1.0, frequency_penalty=0.5)],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("temperature", [0.7, 1.5])
def test_sampled_tokens_follow_the_distribution_that_was_asked_for(temperature: float, way: dict[str, object]) -> None:
    n, logits, context = 4000, [1.0, 0.2, -0.5, 2.0, 0.0, -1.5, 0.7, 0.9, -0.1, 1.4, -2.0, 0.3], [0, 9, 9, 6, 6, 9]
    sampled = [Sampling(temperature=temperature, seed=seed, **way) for seed in range(n)]
    place = Place(context, 2, len(context), ENDS, MASK)
    tokens = picked([(logits, sampling, place) for sampling in sampled])
    share = np.array(plain.distribution(logits, sampled[0], place))
    counts = np.bincount(tokens, minlength=V)
    assert not counts[share == 0].any()
    assert surprise(counts[share > 0], share[share > 0] * n) < 3.3


@pytest.mark.parametrize("score", ["confidence", "margin", "entropy"])
def test_a_forced_token_is_surer_than_any_other_and_the_others_keep_their_probabilities(score: str) -> None:
    logits = some_logits(4)
    way = Sampling(temperature=1.0, top_k=2, logit_bias=((4, 9.0),), max_thinking_tokens=3, end_think_token_id=30)
    history = History.of([1] * 9, 2)
    draws = [
        draw(way, position, 0, score, Shape(sampling=way, position=position, n_prompt=2, eos_token_ids=(),
                                            history=history, length=9))
        for position in (4, 5, 6, 7)
    ]  # fmt: skip
    rows = pick(logits, draws, torch.tensor([0]))
    assert rows.token_S[1] == 30
    assert rows.confidence_S[1] == 1.0
    assert rows.score_S.argmax() == 1
    others = [0, 2, 3]
    own = logits.softmax(-1)[others, rows.token_S[others]]
    assert rows.confidence_S[others] == pytest.approx(own.numpy(), abs=1e-6)
