"""What is chosen follows softmax(logits / T); confidences are the model's own."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.chance import surprise
from trimode.errors import InvalidInput
from trimode.numerics.sampling import Draw, Sampling, draw, pick
from trimode.spans import Score

NOBODY = torch.tensor([], dtype=torch.long)


def chosen(logits_SV: Tensor, draws: list[Draw], banned: Tensor) -> tuple[np.ndarray, np.ndarray]:
    rows = pick(logits_SV, draws, banned)
    assert rows.score_S.tolist() == rows.confidence_S.tolist()
    return rows.token_S, rows.confidence_S


@pytest.mark.parametrize("score", ["confidence", "margin", "entropy"])
def test_a_row_is_ranked_as_its_canvas_asks_whatever_its_neighbours_ask(score: Score) -> None:
    logits = torch.randn(30, 9, generator=torch.Generator().manual_seed(5))
    others: tuple[Score, ...] = ("margin", "confidence", "entropy")
    draws = [draw(Sampling(), i, 0, score if i % 2 else others[i % 3]) for i in range(30)]
    p = logits.double().softmax(-1)
    allowed = p[:, 1:].sort(-1, descending=True).values  # token 0 is banned
    entropy = -(p * p.log()).sum(-1)
    expected = {"confidence": allowed[:, 0], "margin": allowed[:, 0] - allowed[:, 1], "entropy": -entropy}[score]
    rows = pick(logits, draws, torch.tensor([0]))
    assert rows.score_S[1::2] == pytest.approx(expected[1::2].numpy(), abs=1e-6)


def test_a_greedy_choice_is_the_argmax_whatever_the_seed() -> None:
    logits = torch.randn(50, 30, generator=torch.Generator().manual_seed(0))
    draws = [draw(Sampling(seed=seed), 3, 0) for seed in range(50)]
    token, confidence = chosen(logits, draws, NOBODY)
    assert token.tolist() == logits.argmax(-1).tolist()
    assert confidence == pytest.approx(logits.softmax(-1).max(-1).values.numpy(), abs=1e-6)


@pytest.mark.parametrize("temperature", [0.0, 0.5, 3.0])
def test_the_mask_is_never_chosen_but_keeps_its_share_of_the_denominator(temperature: float) -> None:
    logits = torch.randn(200, 7, generator=torch.Generator().manual_seed(1))
    logits[:, 3] += 6  # the mask would win nearly always
    draws = [draw(Sampling(temperature=temperature, seed=2), position, 0) for position in range(200)]
    token, confidence = chosen(logits, draws, torch.tensor([3]))
    assert 3 not in token
    whole = logits.softmax(-1).numpy()
    assert confidence == pytest.approx(whole[np.arange(200), token], abs=1e-6)


def test_confidence_is_that_of_temperature_one() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]] * 40)
    draws = [draw(Sampling(temperature=5.0, seed=1), position, 0) for position in range(40)]
    token, confidence = chosen(logits, draws, NOBODY)
    assert len(set(token.tolist())) == 3
    assert confidence == pytest.approx(logits[0].softmax(-1).numpy()[token], abs=1e-6)


def test_each_row_has_its_own_temperature() -> None:
    logits = torch.randn(60, 20, generator=torch.Generator().manual_seed(3))
    ways = [Sampling(temperature=(0.0, 0.7, 4.0)[i % 3], seed=i) for i in range(60)]
    draws = [draw(way, i, 0) for i, way in enumerate(ways)]
    together = chosen(logits, draws, NOBODY)
    apart = [chosen(logits[i : i + 1], [d], NOBODY) for i, d in enumerate(draws)]
    assert together[0].tolist() == [int(token[0]) for token, _ in apart]
    assert together[1] == pytest.approx([float(confidence[0]) for _, confidence in apart], abs=1e-6)


@pytest.mark.medium
@pytest.mark.parametrize("vary", ["position", "seed", "look", "choice"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_sampled_tokens_follow_the_softmax_of_logits_over_temperature(temperature: float, vary: str) -> None:
    n = 4000
    logits_V = torch.tensor([1.0, 0.2, -0.5, 2.0, 0.0, -1.5])
    banned = torch.tensor([3])
    draws = [
        draw(
            Sampling(temperature=temperature, seed=i if vary == "seed" else 9, choice=i if vary == "choice" else 0),
            i if vary == "position" else 4,
            i if vary == "look" else 0,
        )
        for i in range(n)
    ]
    token, _ = chosen(logits_V.expand(n, -1), draws, banned)
    share = (logits_V.double() / temperature).index_fill(0, banned, float("-inf")).softmax(0).numpy()
    counts = np.bincount(token, minlength=6)
    assert counts[3] == 0
    likely = share > 0
    assert surprise(counts[likely], share[likely] * n) < 3.3


def test_huge_and_tiny_logits_give_finite_confidences() -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]])
    token, confidence = chosen(logits, [Draw(temperature=0.0, key=0)] * 2, torch.tensor([2]))
    assert token.tolist() == [0, 0]
    assert confidence == pytest.approx([1.0, 1 / 3], rel=1e-3)  # what float32 can say


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e-300, 1e-310])
def test_next_to_no_temperature_is_greedy(temperature: float) -> None:
    logits = 20 * torch.randn(50, 30, generator=torch.Generator().manual_seed(0))
    draws = [draw(Sampling(temperature=temperature, seed=seed), 3, 0) for seed in range(50)]
    assert pick(logits, draws, NOBODY).token_S.tolist() == logits.argmax(-1).tolist()


@pytest.mark.parametrize("temperature", [1e6, 1e300])
def test_a_huge_temperature_is_uniform(temperature: float) -> None:
    logits = torch.tensor([30.0, 0.0, -30.0, 7.0]).expand(2000, -1)
    draws = [draw(Sampling(temperature=temperature, seed=seed), 3, 0) for seed in range(2000)]
    counts = np.bincount(pick(logits, draws, NOBODY).token_S, minlength=4)
    assert surprise(counts, np.full(4, 500.0)) < 3.3


@pytest.mark.parametrize("temperature", [float("nan"), float("inf"), -0.1, -math.inf, True, "1", None])
def test_no_other_temperature_exists(temperature: object) -> None:
    with pytest.raises(InvalidInput, match="temperature"):
        Sampling(temperature=temperature)  # type: ignore[arg-type]


def test_half_precision_logits_are_summed_in_single_precision() -> None:
    logits = torch.zeros(1, 5000, dtype=torch.bfloat16)
    _, confidence = chosen(logits, [Draw(temperature=0.0, key=0)], NOBODY)
    assert confidence == pytest.approx([1 / 5000], rel=1e-4)
