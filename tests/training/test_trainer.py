"""The loop learns: three short texts by heart, along the schedule, with a log that tools can read."""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import count, cycle, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.fakes import MASK, tiny_config
from trimode.errors import TrimodeError
from trimode.models.checkpoint import empty
from trimode.models.transformer import Transformer, initialise
from trimode.numerics.noise import Noise
from trimode.training import trainer
from trimode.training.batch import Batch
from trimode.training.corpora import ProceduralCorpus
from trimode.training.documents import Document, Special
from trimode.training.feed import Feed
from trimode.training.objectives import Joint
from trimode.training.optim import Rates, optimizers, set_rates, wsd
from trimode.training.trainer import Schedule, train

NOISE = Noise(block_sizes=(4, 8), all_masked_share=0.5)
RATES = Rates(muon=0.05, qkv=0.01, adam=0.02)
TEXTS = [
    Document.text((10, 20, 30, 40, 50, 21, 22, 23, 2)),
    Document.text((11, 33, 31, 35, 31, 37, 2)),
    Document.text((12, 5, 5, 6, 6, 7, 7, 8, 8, 2), 3),
]


def fresh_model(seed: int = 0) -> Transformer:
    model = empty(tiny_config(), torch.float32, torch.device("cpu"))
    initialise(model, seed)
    return model


def feed(noise: Noise | None = NOISE) -> Iterator[Batch]:
    corpus = ProceduralCorpus(len(TEXTS), TEXTS.__getitem__, "texts")
    source = Feed(corpus, noise, Special(mask_token_id=MASK), seed=0, rows=96, streams=2)
    return (batch for step in count() for batch in source.batches(step, micro=2))


def schedule(steps: int, log_every: int = 1) -> Schedule:
    return Schedule(
        steps=steps, rates=RATES, objective=Joint(weights={"ar": 1.0, "diffusion": 1.0}), warmup=5, log_every=log_every
    )


def lines(log: Path) -> list[dict[str, Any]]:
    """The log, as strict JSON: no NaN and no Infinity."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in log.read_text("utf-8").splitlines()]


@pytest.mark.medium
def test_three_short_texts_are_learned_by_heart_in_both_objectives(tmp_path: Path) -> None:
    model = fresh_model()
    train(model, feed(), schedule(steps=120, log_every=10), tmp_path / "log.jsonl")
    first, *_, last = lines(tmp_path / "log.jsonl")
    assert first["ar"] == pytest.approx(4.11, abs=0.3)  # ln 61: nothing known yet
    assert last["ar"] < first["ar"] / 20
    assert last["diffusion"] < first["diffusion"] / 4  # the first slot cannot know which text it is in


def test_a_plain_autoregressive_stage_needs_no_canvases(tmp_path: Path) -> None:
    train(fresh_model(), feed(None), schedule(steps=25), tmp_path / "log.jsonl")
    first, *_, last = lines(tmp_path / "log.jsonl")
    assert "diffusion" not in first
    assert last["ar"] < first["ar"] / 3


def test_every_logged_step_is_one_line_of_json(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    train(fresh_model(), feed(), schedule(steps=8, log_every=3), log)
    assert [line["step"] for line in lines(log)] == [0, 3, 6, 7]
    assert all(set(line) == {"step", "ar", "diffusion", "norm", "targets", "seconds"} for line in lines(log))
    assert all(a["targets"] < b["targets"] and a["seconds"] <= b["seconds"] for a, b in pairwise(lines(log)))
    train(fresh_model(), feed(), schedule(steps=1), log)
    assert len(lines(log)) == 5  # a second stage appends


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    models = [fresh_model(), fresh_model()]
    for model in models:
        train(model, feed(), schedule(steps=3), tmp_path / "log.jsonl")
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(models[0].norm, fresh_model().norm)


def spoiled(model: Transformer, at: int) -> Iterator[Batch]:
    """Good batches, and a model broken just before step `at`."""
    for step, batch in enumerate(feed()):
        if step == at:
            with torch.no_grad():
                model.norm[0] = float("nan")
        yield batch


def test_a_loss_that_is_not_a_number_stops_the_run_and_names_the_step(tmp_path: Path) -> None:
    model = fresh_model()
    with pytest.raises(TrimodeError, match="step 3"):
        train(model, spoiled(model, at=3), schedule(steps=6), tmp_path / "log.jsonl")
    assert [line["step"] for line in lines(tmp_path / "log.jsonl")] == [0, 1, 2]


def test_the_step_named_is_the_first_bad_one_between_log_lines_too(tmp_path: Path) -> None:
    model = fresh_model()
    with pytest.raises(TrimodeError, match="step 3"):
        train(model, spoiled(model, at=3), schedule(steps=12, log_every=10), tmp_path / "log.jsonl")


def test_the_rate_warms_up_stays_and_decays_to_the_end() -> None:
    rate = partial(wsd, steps=20, warmup=4, decay=5)
    assert [rate(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert all(rate(step) == 1.0 for step in range(4, 16))
    assert [rate(step) for step in range(16, 20)] == pytest.approx([0.8, 0.6, 0.4, 0.2])


@pytest.mark.parametrize(("steps", "warmup", "decay"), [(1, 0, 0), (10, 50, 4), (10, 3, 10), (7, 0, 0)])
def test_the_rate_is_a_factor_above_zero_and_at_most_one(steps: int, warmup: int, decay: int) -> None:
    assert all(0 < wsd(step, steps, warmup, decay) <= 1 for step in range(steps))


def test_every_weight_is_in_one_group_and_queries_and_keys_are_never_with_muon() -> None:
    model = fresh_model()
    names = {id(p): name for name, p in model.named_parameters()}
    muon, adam = optimizers(model, RATES)
    groups = [sorted(names[id(p)] for p in group["params"]) for group in muon.param_groups + adam.param_groups]
    layers = range(model.config.n_layers)
    assert groups[0] == [f"layers.{i}.{name}" for i in layers for name in ("down", "gate_up", "out")]
    assert groups[1] == [f"layers.{i}.qkv" for i in layers]
    assert sorted(name for group in groups for name in group) == sorted(names.values())


def test_rates_scale_from_the_peak_each_time() -> None:
    optims = optimizers(fresh_model(), RATES)
    for factor in (0.5, 0.5, 1.0):
        set_rates(optims, factor)
        rates = [group["lr"] for optim in optims for group in optim.param_groups]
        assert rates == [0.05 * factor, 0.01 * factor, 0.02 * factor]


def test_a_stage_follows_the_schedule_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    factors: list[float] = []
    monkeypatch.setattr(trainer, "set_rates", lambda optims, factor: factors.append(factor))
    train(fresh_model(), feed(), schedule(steps=10), tmp_path / "log.jsonl")
    assert factors == [wsd(step, steps=10, warmup=5, decay=4) for step in range(10)]


def test_a_step_uses_the_gradient_of_its_own_batch_alone(tmp_path: Path) -> None:
    still = replace(schedule(steps=3), rates=Rates(muon=0.0, qkv=0.0, adam=0.0))
    train(fresh_model(), cycle([next(feed())]), still, tmp_path / "log.jsonl")
    assert len({line["norm"] for line in lines(tmp_path / "log.jsonl")}) == 1


def test_a_stage_takes_the_steps_it_was_given_and_no_batch_more(tmp_path: Path) -> None:
    taken = cycle([next(feed())])
    counted = 0

    def counting() -> Iterator[Batch]:
        nonlocal counted
        for batch in taken:
            counted += 1
            yield batch

    train(fresh_model(), counting(), schedule(steps=3), tmp_path / "log.jsonl")
    assert counted == 3
