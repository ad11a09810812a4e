"""What the training benchmark compares computes the same loss, and its operations are counted by the rule."""

import pytest
import torch

from scripts.bench.training_step import batch_of, fields, loss_of, pairs, random_model, sample, step_flops
from trimode.models.transformer import Transformer
from trimode.numerics.visibility import visible

CPU = torch.device("cpu")


def tiny() -> Transformer:
    return random_model(fields("tiny", 1), torch.float32, CPU)


@pytest.mark.parametrize("variant", ["split", "recomputed", "dense"])
def test_every_variant_has_the_loss_and_the_gradients_of_the_naive_one(variant: str) -> None:
    found = []
    for name in (variant, "naive"):
        model = tiny()
        samples = [sample(50, 8, model.config, seed) for seed in range(2)]
        loss = loss_of(name, model, batch_of(samples, name, model.config, CPU))()
        loss.backward()
        found.append([loss.detach(), *(weight.grad for weight in model.parameters())])
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_pairs_are_those_of_the_rule() -> None:
    span = sample(50, 8, tiny().config).span
    assert pairs(span) == int(visible([span]).sum())


def test_a_step_takes_six_operations_per_weight_and_row_and_twelve_per_channel_and_pair() -> None:
    config = tiny().config
    one = sample(20, 4, config)
    layer = 64 * 2 * (4 + 2) * 16 + 3 * 64 * 176
    n_scored = 19 + len(one.diffusion)
    assert step_flops(config, [one]) == 6 * (layer * 39 + 4096 * 64 * n_scored) + 12 * 4 * 16 * pairs(one.span)
