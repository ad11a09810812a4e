"""The chunked loss is the plain weighted sum, in value and in gradient."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trimode.numerics import losses
from trimode.numerics.losses import weighted_cross_entropy


def rows(n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """hidden_SD, labels_S, weights_S and a head_VD."""
    generator = torch.Generator().manual_seed(n)
    return (
        torch.randn(n, 6, generator=generator),
        torch.randint(11, (n,), generator=generator),
        torch.rand(n, generator=generator) * 3,
        torch.randn(11, 6, generator=generator),
    )


def both(n: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Tensor], list[Tensor]]:
    """[value, gradient of hidden, gradient of head], ours in chunks and by hand in one piece."""
    monkeypatch.setattr(losses, "CHUNK", chunk)
    hidden, labels, weights, head = rows(n)
    found = []
    for plain in (False, True):
        h, w = hidden.clone().requires_grad_(True), head.clone().requires_grad_(True)
        if plain:
            log_p = torch.log_softmax(h @ w.T, -1)
            value = -(log_p[torch.arange(n), labels] * weights).sum()
        else:
            value = weighted_cross_entropy(h, labels, weights, lambda x, w=w: F.linear(x, w))
        value.backward()
        assert h.grad is not None
        assert w.grad is not None
        found.append([value.detach(), h.grad, w.grad])
    return found[0], found[1]


@pytest.mark.parametrize(("n", "chunk"), [(1, 4), (4, 4), (5, 4), (23, 4), (23, 1000)])
def test_chunks_change_neither_the_loss_nor_its_gradient(n: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, plain = both(n, chunk, monkeypatch)
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)


def test_never_more_than_a_chunk_of_scores_exists() -> None:
    hidden, labels, weights, head = rows(2 * losses.CHUNK + 7)
    asked: list[int] = []

    def logits(hidden_SD: Tensor) -> Tensor:
        asked.append(len(hidden_SD))
        return F.linear(hidden_SD, head)

    weighted_cross_entropy(hidden, labels, weights, logits)
    assert asked == [losses.CHUNK, losses.CHUNK, 7]


def test_rows_of_weight_zero_never_meet_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "CHUNK", 4)
    hidden, labels, weights, head = rows(23)
    is_scored = torch.arange(23) % 3 == 0
    asked: list[int] = []

    def logits(hidden_SD: Tensor) -> Tensor:
        asked.append(len(hidden_SD))
        return F.linear(hidden_SD, head)

    value = weighted_cross_entropy(hidden, labels, weights * is_scored, logits)
    alone = weighted_cross_entropy(hidden[is_scored], labels[is_scored], weights[is_scored], logits)
    assert asked == [4, 4] * 2
    assert torch.equal(value, alone)
    assert weighted_cross_entropy(hidden, labels, weights * 0, logits).item() == 0.0


def test_under_autocast_the_head_is_bfloat16_and_the_loss_float32() -> None:
    hidden, labels, weights, head = rows(500)
    hidden.requires_grad_()
    found: list[torch.dtype] = []

    def logits(hidden_SD: Tensor) -> Tensor:
        out = F.linear(hidden_SD, head)
        found.append(out.dtype)
        return out

    with torch.autocast("cpu", torch.bfloat16):
        value = weighted_cross_entropy(hidden, labels, weights, logits)
    value.backward()
    log_p = torch.log_softmax(F.linear(hidden.bfloat16(), head.bfloat16()).double(), -1)
    exact = -(log_p[torch.arange(500), labels] * weights).sum()
    assert set(found) == {torch.bfloat16}
    assert len(found) == 2  # forward, and again in the backward pass
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=0)


def test_no_rows_cost_nothing() -> None:
    hidden, labels, weights, head = rows(0)
    assert weighted_cross_entropy(hidden, labels, weights, lambda x: F.linear(x, head)).item() == 0.0


def test_bfloat16_rows_are_summed_in_float32() -> None:
    hidden, labels, weights, head = rows(500)
    hidden, head = hidden.bfloat16(), head.bfloat16()
    value = weighted_cross_entropy(hidden, labels, weights, lambda x: F.linear(x, head))
    log_p = torch.log_softmax(F.linear(hidden, head).double(), -1)
    exact = -(log_p[torch.arange(500), labels] * weights).sum()
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=0)
