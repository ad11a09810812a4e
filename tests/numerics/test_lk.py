"""The drafter's loss equals its formula, written plainly; equal scores cost nothing; what is looked at, by hand."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from trimode.numerics import lk
from trimode.numerics.lk import active, losses, support


def softmax(scores: dict[int, float], temperature: float) -> dict[int, float]:
    top = max(scores.values())
    weights = {token: math.exp((score - top) / temperature) for token, score in scores.items()}
    return {token: weight / sum(weights.values()) for token, weight in weights.items()}


def plain(draft: Sequence[float], verifier: Sequence[float], chosen: int, n: int) -> tuple[float, float | None]:
    """One position of arXiv 2607.05722, app. B, in plain Python: the hybrid and the cross entropy, None outside."""

    def best(scores: Sequence[float]) -> set[int]:
        return set(sorted(range(len(scores)), key=lambda token: -scores[token])[:n])

    union = best(draft) | best(verifier)
    q, p = (softmax({token: scores[token] for token in union}, 3.0) for scores in (draft, verifier))
    share = math.exp(-0.5 * sum(min(p[token], q[token]) for token in union))
    divergence = sum(p[token] * math.log(p[token] / q[token]) for token in union)
    variation = 0.5 * sum(abs(p[token] - q[token]) for token in union)
    sharp = softmax({token: draft[token] for token in union}, 1.0)
    entropy = -math.log(sharp[chosen]) if chosen in union else None
    return share * divergence + (1 - share) * variation, entropy


def scores(seed: int, rows: int = 40, vocabulary: int = 50, spread: float = 4.0) -> Tensor:
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * spread


@pytest.mark.parametrize("n", [3, 10, 200])
def test_the_loss_of_a_position_is_what_the_formula_says(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lk, "SUPPORT", n)
    draft, verifier = scores(0), scores(1)
    chosen = torch.randint(50, (40,), generator=torch.Generator().manual_seed(2))
    got = losses(draft, verifier, chosen)
    for row in range(40):
        hybrid, entropy = plain(draft[row].tolist(), verifier[row].tolist(), int(chosen[row]), n)
        assert got.hybrid_S[row].item() == pytest.approx(hybrid, rel=1e-4, abs=1e-6)
        assert bool(got.is_known_S[row]) == (entropy is not None)
        assert got.cross_entropy_S[row].item() == pytest.approx(entropy or 0.0, rel=1e-4, abs=1e-5)
    assert got.is_known_S.all() == (n == 200)


def test_the_support_is_the_union_of_both_bests_and_names_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lk, "SUPPORT", 2)
    draft, verifier = torch.tensor([[0.0, 3.0, 2.0, 1.0, -1.0]]), torch.tensor([[5.0, 4.0, 0.0, 0.0, 0.0]])
    tokens, is_double = support(draft, verifier)
    assert sorted(tokens[~is_double].tolist()) == [0, 1, 2]
    assert tokens[is_double].tolist() == [1]


def test_a_drafter_that_equals_its_verifier_has_no_divergence_and_nothing_to_learn_from_it() -> None:
    same = scores(3).requires_grad_()
    got = losses(same, same.detach().clone(), same.argmax(-1))
    assert got.hybrid_S.abs().max().item() < 1e-6
    (gradient,) = torch.autograd.grad(got.hybrid_S.sum(), same)
    assert gradient.abs().max().item() < 1e-6


def test_the_share_of_the_divergence_falls_with_the_agreement_and_has_no_gradient() -> None:
    """Far from its verifier a drafter minimises the divergence (share near 1), near it also the variation."""
    draft = scores(4).requires_grad_()
    verifier = scores(5)
    got = losses(draft, verifier, verifier.argmax(-1))
    (gradient,) = torch.autograd.grad(got.hybrid_S.sum(), draft)
    q, p = (draft / 3).softmax(-1), (verifier / 3).softmax(-1)
    share = torch.exp(-0.5 * torch.minimum(p, q).sum(-1)).detach()
    assert math.exp(-0.5) < share.min() < share.max() < 1.0
    by_hand = share * (p * (p / q).log()).sum(-1) + (1 - share) * 0.5 * (p - q).abs().sum(-1)
    (expected,) = torch.autograd.grad(by_hand.sum(), draft)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_the_verifier_gets_no_gradient() -> None:
    draft, verifier = scores(6).requires_grad_(), scores(7).requires_grad_()
    got = losses(draft, verifier, verifier.argmax(-1))
    (got.hybrid_S.sum() + got.cross_entropy_S.sum()).backward()
    assert draft.grad is not None
    assert verifier.grad is None


def test_the_accepted_drafts_and_the_first_rejected_one_are_active() -> None:
    drafts = torch.tensor([3, 5, 7, 2, 4, 1, 9, 9, 8])
    chosen = torch.tensor([3, 5, 6, 2, 4, 1, 0, 9, 8])
    canvases = torch.tensor([4, 4, 4, 4, 5, 5, 9, 9, 9])
    expected = [True, True, True, False, True, True, True, False, False]
    assert active(drafts, chosen, canvases).tolist() == expected
