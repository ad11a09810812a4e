"""Every weight learns in one group, at the rate of its kind and of the step."""

from dataclasses import replace
from typing import Any

import pytest

from tests.training.stand_ins import STAGE, fresh_model
from trimode.training.optim import optimizers, rate_factor, set_rates
from trimode.training.recipe import Stage

MUON = replace(STAGE, optimizer="muon", weight_decay=0.1, muon_learning_rate=0.05)


def groups(stage: Stage, model: Any) -> list[tuple[list[str], float, float]]:
    """Names, peak and weight decay of each group."""
    names = {id(weight): name for name, weight in model.named_parameters()}
    optims = optimizers(dict(model.named_parameters()), stage)
    found = [group for optim in optims for group in optim.param_groups]
    return [(sorted(names[id(w)] for w in g["params"]), g["peak"], g["weight_decay"]) for g in found]


def factors(**options: Any) -> list[float]:
    stage = replace(STAGE, **options)
    return [rate_factor(stage, step) for step in range(stage.steps)]


def test_wsd_warms_up_stays_and_decays_to_its_end() -> None:
    rates = factors(steps=20, warmup=4, schedule="wsd", decay_share=0.25, final_share=0.0)
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert all(rate == 1.0 for rate in rates[4:16])
    assert rates[16:] == pytest.approx([0.8, 0.6, 0.4, 0.2])  # 0 is what step 20 would have


def test_cosine_falls_from_the_warm_up_to_the_end_half_way_in_the_middle() -> None:
    rates = factors(steps=24, warmup=4, schedule="cosine", final_share=0.2)
    assert rates[3] == 1.0
    assert rates[14] == pytest.approx(0.6)
    assert rates[-1] == pytest.approx(0.2, abs=0.01)
    assert sorted(rates[4:], reverse=True) == rates[4:]


def test_a_constant_rate_only_warms_up() -> None:
    assert factors(steps=5, warmup=2, schedule="constant") == [0.5, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("schedule", ["wsd", "cosine", "constant"])
@pytest.mark.parametrize(("steps", "warmup", "share"), [(1, 0, 0.0), (10, 50, 0.4), (10, 3, 1.0), (7, 0, 0.0)])
def test_the_rate_is_a_factor_above_zero_and_at_most_one(schedule: str, steps: int, warmup: int, share: float) -> None:
    rates = factors(steps=steps, warmup=warmup, schedule=schedule, decay_share=share, final_share=0.0)
    assert all(0 < rate <= 1 for rate in rates)


@pytest.mark.parametrize("stage", [STAGE, MUON])
@pytest.mark.parametrize("tied", [True, False])
def test_every_weight_is_in_one_group(stage: Stage, tied: bool) -> None:
    model = fresh_model(tied=tied)
    found = [name for names, _, _ in groups(stage, model) for name in names]
    assert sorted(found) == sorted(name for name, _ in model.named_parameters())


@pytest.mark.parametrize("stage", [replace(STAGE, weight_decay=0.1), MUON])
def test_vectors_and_embeddings_have_no_weight_decay(stage: Stage) -> None:
    model = fresh_model(tied=False, qkv_bias=True)
    plain = {name for names, _, decay in groups(stage, model) if decay == 0 for name in names}
    assert plain == {name for name, w in model.named_parameters() if w.dim() == 1 or name in ("embedding", "head")}


def test_muon_has_the_matrices_but_queries_and_keys_without_a_norm() -> None:
    model = fresh_model()
    layers = range(model.config.n_layers)
    muon, qkv, *_ = groups(MUON, model)
    assert muon[0] == [f"layers.{i}.{name}" for i in layers for name in ("down", "gate_up", "out")]
    assert (qkv[0], muon[1], qkv[1]) == ([f"layers.{i}.qkv" for i in layers], 0.05, 0.01)


def test_muon_has_queries_and_keys_that_have_a_norm() -> None:
    model = fresh_model(qk_norm=True)
    muon, *others = groups(MUON, model)
    assert {name for name in muon[0] if name.endswith(".qkv")} == {
        f"layers.{i}.qkv" for i in range(model.config.n_layers)
    }
    assert not [name for names, _, _ in others for name in names if name.endswith(".qkv")]


def test_weights_that_do_not_learn_are_in_no_group() -> None:
    model = fresh_model()
    model.requires_grad_(False)
    model.norm.requires_grad_(True)
    assert [names for names, _, _ in groups(STAGE, model)] == [["norm"]]


def test_rates_scale_from_the_peak_each_time() -> None:
    optims = optimizers(dict(fresh_model().named_parameters()), MUON)
    for factor in (0.5, 0.5, 1.0):
        set_rates(optims, factor)
        rates = [group["lr"] for optim in optims for group in optim.param_groups]
        assert rates == [0.05 * factor, 0.01 * factor, 0.02 * factor]
