"""The loop learns, whatever the micro-batches; stops before a bad step; and heeds a signal at the end of a step."""

import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.stand_ins import STAGE, Feed, Lines, Saves, fresh_model, parts
from trimode.errors import TrimodeError
from trimode.training.batch import Batch
from trimode.training.trainer import Parts, Progress, evaluate, gradients, ranges, train

pytestmark = pytest.mark.medium


def run(stage: Any = STAGE, made: Parts | None = None, **options: Any) -> Parts:
    made = made or parts(stage, **options)
    assert train(stage, made, Progress())
    return made


def lines(made: Parts) -> Lines:
    assert isinstance(made.metrics, Lines)
    return made.metrics


def saves(made: Parts) -> list[Any]:
    assert isinstance(made.checkpoints, Saves)
    return made.checkpoints.facts


@pytest.mark.medium
def test_three_short_texts_are_learned_by_heart_in_both_objectives() -> None:
    stage = replace(STAGE, steps=120, log_every=119, schedule="wsd", final_share=0.0)
    first, last = lines(run(stage)).lines[0], lines(run(stage)).lines[-1]
    assert first["ar"] == pytest.approx(4.11, abs=0.3)  # ln 61: nothing known yet
    assert last["ar"] < first["ar"] / 20
    assert last["diffusion"] < first["diffusion"] / 4  # the first slot cannot know which text it is in


def test_a_plain_autoregressive_stage_needs_no_canvases() -> None:
    first, *_, last = lines(run(replace(STAGE, steps=25), feed=Feed(noise=None))).lines
    assert "diffusion" not in first
    assert last["ar"] < first["ar"] / 3


def test_the_same_seed_gives_the_same_weights() -> None:
    stage = replace(STAGE, steps=3)
    models = [run(stage).trained, run(stage).trained]
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(next(models[0].parameters()), next(fresh_model().parameters()))


def test_stopped_and_gone_on_with_is_as_never_stopped() -> None:
    stage = replace(STAGE, steps=10)
    whole, halves, state = run(stage), parts(stage), Progress()
    halves.interrupts.signal = signal.SIGTERM
    for _ in range(5):
        assert not train(stage, halves, state)
    halves.interrupts.signal = 0
    assert train(stage, halves, state)
    assert lines(halves).lines[-1]["step"] == 10
    assert lines(halves).of("loss") == lines(whole).of("loss")


def test_micro_batches_change_neither_losses_nor_gradients() -> None:
    stage = replace(STAGE, streams=8, steps=2)
    feed = Feed(streams=8)
    norms = [lines(run(replace(stage, micro=micro), feed=feed)) for micro in (1, 2, 8)]
    for other in norms[1:]:
        assert other.of("loss") == pytest.approx(norms[0].of("loss"), rel=1e-5)
        assert other.of("norm") == pytest.approx(norms[0].of("norm"), rel=1e-5)


def test_the_loss_is_divided_by_counts_of_the_whole_step() -> None:
    """A micro-batch with few targets weighs as few targets do, not as a whole micro-batch."""
    stage = replace(STAGE, streams=2)
    made = parts(stage, feed=Feed(noise=None, streams=2))
    measured = gradients(stage, made, 0)
    sums = [made.root(batch)["ar"].item() for batch in made.feed.batches(0)]
    counts = [batch.ar.count for batch in made.feed.batches(0)]
    assert len(set(counts)) == 2
    assert measured.loss == pytest.approx(sum(sums) / sum(counts), rel=1e-6)
    assert measured.tokens == sum(counts)


def test_activation_checkpointing_is_no_change() -> None:
    from trimode.training.assembly import recompute

    plain, spared = parts(), parts()
    recompute(spared.root.model.layers)  # type: ignore[arg-type]
    names = [name for name, _ in plain.root.named_parameters()]
    assert [name for name, _ in spared.root.named_parameters()] == names
    assert lines(run(made=plain)).of("norm") == lines(run(made=spared)).of("norm")


@dataclass(frozen=True)
class Spoiling(Feed):
    """Breaks the model when the batches of step `at` are made."""

    model: Any = None
    at: int = 0
    value: float = float("nan")

    def batches(self, step: int, **places: int) -> list[Batch]:
        if step == self.at:
            with torch.no_grad():
                self.model.norm.mul_(self.value)
        return super().batches(step, **places)


def spoiled(stage: Any, at: int, value: float) -> Parts:
    made = parts(stage)
    return replace(made, feed=Spoiling(model=made.trained, at=at, value=value))


@pytest.mark.parametrize("log_every", [1, 10])
def test_a_loss_that_is_not_a_number_stops_before_the_step_and_names_the_samples(log_every: int) -> None:
    stage = replace(STAGE, steps=12, log_every=log_every, save_every=2)
    made, state = spoiled(stage, 3, float("nan")), Progress()
    with pytest.raises(TrimodeError, match=r"step 4: the loss is nan .* samples 6-7; .* checkpoint is step-00000002"):
        train(stage, made, state)
    assert state.step == 3
    assert all(torch.isfinite(p).all() for name, p in made.trained.named_parameters() if name != "norm")


def test_a_spike_stops_and_says_what_was_usual() -> None:
    stage = replace(STAGE, steps=40, spike=3.0)
    made = spoiled(stage, 25, -60.0)
    with pytest.raises(TrimodeError, match=r"step 26: the loss is \d+.*, the recent median .*no checkpoint yet"):
        train(stage, made, Progress())
    assert train(replace(stage, spike=0.0), spoiled(stage, 25, -60.0), Progress())


def test_a_gradient_that_is_not_finite_stops_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimode.training.trainer.clipped", lambda parameters, limit: float("inf"))
    with pytest.raises(TrimodeError, match="step 1: the gradient's norm is inf"):
        train(STAGE, parts(), Progress())


def test_a_signal_ends_the_run_at_the_end_of_its_step_with_a_checkpoint() -> None:
    made, state = parts(), Progress()
    made.interrupts.signal = signal.SIGTERM
    assert not train(STAGE, made, state)
    assert [fact["step"] for fact in saves(made)] == [1]
    assert state.saved == Path("step-00000001")


def test_checkpoints_come_every_few_steps_and_at_the_end() -> None:
    made = run(replace(STAGE, save_every=2))
    assert [fact["step"] for fact in saves(made)] == [2, 4, 5]
    assert saves(made)[-1]["tokens"] == lines(made).lines[-1]["tokens"]
    assert saves(made)[-1]["recent"] == lines(made).of("loss")


def test_lines_come_at_the_first_the_last_and_every_few_steps() -> None:
    made = run(replace(STAGE, steps=8, log_every=3))
    assert lines(made).of("step") == [1, 3, 6, 8]
    names = ["step", "epoch", "loss", "ar", "diffusion", "norm", "rate", "tokens", "tokens_per_second", "seconds"]
    assert list(lines(made).lines[0]) == names


def test_held_out_texts_are_measured_under_always_the_same_noise() -> None:
    stage = replace(STAGE, steps=4, log_every=100, evaluate_every=2, learning_rate=0.0)
    made = replace(parts(stage), heldout=Feed())
    assert train(stage, made, Progress())
    held = [line for line in lines(made).lines if "heldout_ar" in line]
    assert [line["step"] for line in held] == [2, 4]
    assert held[0]["heldout_diffusion"] == held[1]["heldout_diffusion"]
    assert evaluate(stage, made)["ar"] == held[0]["heldout_ar"]
    assert made.root.training


def test_held_out_losses_that_are_not_finite_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimode.training.trainer.evaluate", lambda stage, parts: {"ar": float("nan")})
    made = replace(parts(), heldout=Feed())
    with pytest.raises(TrimodeError, match=r"step 2: the held-out losses are .*nan.*there is no checkpoint yet"):
        train(replace(STAGE, evaluate_every=2), made, Progress())


def test_a_step_uses_the_gradient_of_its_own_batch_alone() -> None:
    stage = replace(STAGE, steps=3, learning_rate=0.0, streams=3)
    made = run(stage, feed=Feed(noise=None, streams=3))
    assert len(set(lines(made).of("norm"))) == 1


def test_numbers_are_told_as_ranges() -> None:
    assert ranges([7, 1, 2, 3, 9, 10]) == "1-3, 7, 9-10"
