"""The loop of one stage: micro-batches, loss over the global batch, guard, step, line, checkpoint. Owns the clock.

A step is a pure function of (weights, moments, step): order and noise come from the feed, which knows them by number.
"""

import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from trimode.errors import TrimodeError
from trimode.training.batch import Batch
from trimode.training.interrupts import Interrupts
from trimode.training.metrics import Silent
from trimode.training.objectives import value
from trimode.training.optim import rate_factor, set_rates
from trimode.training.parallel import Root, World, clipped, reshard
from trimode.training.recipe import Stage

RECENT, ENOUGH = 50, 20  # losses remembered, and how many a median needs


class Batches(Protocol):
    """Where batches come from; all functions of the step alone."""

    def batches(self, step: int, *, rank: int = 0, world: int = 1, micro: int = 1) -> list[Batch]: ...
    def epoch(self, step: int) -> float: ...
    def samples(self, step: int) -> tuple[int, ...]: ...


class Saves(Protocol):
    """Where checkpoints go."""

    def save(
        self, step: int, model: nn.Module, optims: Sequence[torch.optim.Optimizer], facts: Mapping[str, Any]
    ) -> Path: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the loop of a stage works with; `trained` is what a checkpoint holds, `facts` what it says of itself."""

    root: Root
    trained: nn.Module
    optims: list[torch.optim.Optimizer]
    feed: Batches
    heldout: Batches | None
    checkpoints: Saves
    metrics: Silent
    world: World
    facts: Mapping[str, Any]
    interrupts: Interrupts = field(default_factory=Interrupts)


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a stage has come: steps done, tokens learned from, seconds, the losses of the last steps."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    recent: list[float] = field(default_factory=list)
    logged: tuple[int, float] = (0, 0.0)  # tokens and seconds at the last line
    saved: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Sums over the global batch, and whether some process was asked to stop."""

    parts: dict[str, float]  # sum / count of each part that has a count
    loss: float
    tokens: int
    is_asked: bool = False


def train(stage: Stage, parts: Parts, state: Progress) -> bool:
    """Go on from `state` to the stage's last step, or to the end of the step in which a signal comes: then False.

    Mutates the model, its optimisers and `state`. A loss or gradient that is not finite, and a spike, raise
    TrimodeError before the step that would have used them. Collective.
    """
    parts.root.train()
    while state.step < stage.steps:
        start = time.perf_counter()
        set_rates(parts.optims, rate_factor(stage, state.step))
        measured = gradients(stage, parts, state.step)
        _guard(stage, parts, state, measured.loss, measured.parts)
        norm = clipped([p for p in parts.trained.parameters() if p.requires_grad], stage.clip)
        if not math.isfinite(norm):
            raise _stopped(f"the gradient's norm is {norm}", stage, parts, state, measured.parts)
        for optim in parts.optims:
            optim.step()
            optim.zero_grad()
        took = time.perf_counter() - start
        _count(state, measured, took)
        _report(stage, parts, state, measured, norm)
        if state.step % stage.save_every == 0 or state.step == stage.steps or measured.is_asked:
            state.saved = parts.checkpoints.save(state.step, parts.trained, parts.optims, facts(parts, state))
        if measured.is_asked:
            return state.step == stage.steps
    return True


def gradients(stage: Stage, parts: Parts, step: int) -> Measured:
    """Forward and backward over this process's micro-batches. Collective; adds to the gradients.

    All sums are divided by counts of the whole step, so neither processes nor micro-batches change the loss; sharded
    gradients are averaged over processes, hence the factor.
    """
    world, weights = parts.world, parts.root.objective.weights
    batches = parts.feed.batches(step, rank=world.rank, world=world.size, micro=stage.micro)
    counts, tokens = _counts(parts, batches)
    sums_P = torch.zeros(len(counts), dtype=torch.float64, device=world.device)
    for batch in batches:
        with _autocast(stage, world):
            sums = parts.root(batch.to(world.device))
            loss = value(sums, counts, weights) * world.size
        loss.backward()
        sums_P += torch.stack([sums[name].detach() for name in counts])
    *totals, asked = world.total([*sums_P.tolist(), float(parts.interrupts.signal != 0)])
    return _measured(dict(zip(counts, totals, strict=True)), counts, weights, tokens, asked > 0)


def evaluate(stage: Stage, parts: Parts) -> dict[str, float]:
    """Each part of the loss over the first held-out steps: always the same batches under the same noise. Collective."""
    world, heldout = parts.world, parts.heldout
    assert heldout is not None
    sums: dict[str, float] = {}
    counts: dict[str, float] = {}
    parts.root.eval()
    for step in range(stage.evaluate_batches):
        for batch in heldout.batches(step, rank=world.rank, world=world.size, micro=stage.micro):
            with torch.no_grad(), _autocast(stage, world):
                here = parts.root(batch.to(world.device))
            for name, count in parts.root.objective.counts(batch).items():
                sums[name] = sums.get(name, 0.0) + here[name].item()
                counts[name] = counts.get(name, 0.0) + count
    reshard(parts.root)
    parts.root.train()
    totals = world.total([*sums.values(), *counts.values()])
    n = len(sums)
    return {name: total / count for name, total, count in zip(sums, totals[:n], totals[n:], strict=True) if count}


def facts(parts: Parts, state: Progress) -> dict[str, Any]:
    """What a checkpoint says: the run's facts and how far it has come."""
    return {**parts.facts, "tokens": state.tokens, "seconds": state.seconds, "recent": state.recent}


def _counts(parts: Parts, batches: Sequence[Batch]) -> tuple[dict[str, int], int]:
    """The divisors of the whole step, and its targets."""
    mine = [parts.root.objective.counts(batch) for batch in batches]
    names = list(mine[0])
    here = [sum(counts[name] for counts in mine) for name in names]
    *totals, tokens = parts.world.total([*here, sum(batch.ar.count for batch in batches)])
    return {name: round(total) for name, total in zip(names, totals, strict=True)}, round(tokens)


def _measured(
    sums: dict[str, float], counts: dict[str, int], weights: Mapping[str, float], tokens: int, is_asked: bool
) -> Measured:
    loss = value({name: torch.tensor(total, dtype=torch.float64) for name, total in sums.items()}, counts, weights)
    parts = {name: total / counts[name] for name, total in sums.items() if counts[name]}
    return Measured(parts=parts, loss=loss.item(), tokens=tokens, is_asked=is_asked)


def _autocast(stage: Stage, world: World) -> torch.autocast:
    return torch.autocast(world.device.type, torch.bfloat16, enabled=stage.precision == "bfloat16")


def _guard(stage: Stage, parts: Parts, state: Progress, loss: float, each: Mapping[str, float]) -> None:
    """Refuse a loss that is not finite or far above what it was."""
    if not math.isfinite(loss):
        raise _stopped(f"the loss is {loss}", stage, parts, state, each)
    if stage.spike and len(state.recent) >= ENOUGH:
        median = statistics.median(state.recent)
        if loss > stage.spike * median + 1:
            raise _stopped(f"the loss is {loss:.4g}, the recent median {median:.4g}", stage, parts, state, each)


def _stopped(what: str, stage: Stage, parts: Parts, state: Progress, each: Mapping[str, float]) -> TrimodeError:
    shown = ", ".join(f"{name} {number:.4g}" for name, number in each.items())
    return TrimodeError(
        f"{stage.name}, step {state.step + 1}: {what} ({shown}), before it reached the weights; "
        f"samples {ranges(parts.feed.samples(state.step))}; {_last(state)}"
    )


def _last(state: Progress) -> str:
    return f"the last good checkpoint is {state.saved}" if state.saved else "there is no checkpoint yet"


def _held(stage: Stage, parts: Parts, state: Progress) -> dict[str, float]:
    """The held-out losses, by the names of the metrics. One that is not finite ends the run, as in training."""
    held = {f"heldout_{name}": number for name, number in evaluate(stage, parts).items()}
    if not all(map(math.isfinite, held.values())):
        raise TrimodeError(f"{stage.name}, step {state.step}: the held-out losses are {held}; {_last(state)}")
    return held


def ranges(numbers: Sequence[int]) -> str:
    """1, 2, 3, 7 -> '1-3, 7'."""

    def runs() -> Iterator[str]:
        for _, group in groupby(enumerate(sorted(set(numbers))), lambda pair: pair[1] - pair[0]):
            run = [number for _, number in group]
            yield str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}"

    return ", ".join(runs())


def _count(state: Progress, measured: Measured, took: float) -> None:
    state.step += 1
    state.tokens += measured.tokens
    state.seconds += took
    state.recent = [*state.recent, measured.loss][-RECENT:]


def _report(stage: Stage, parts: Parts, state: Progress, measured: Measured, norm: float) -> None:
    """A line at the first and the last step, every `log_every` ones and where held-out texts are measured."""
    step = state.step
    parts.metrics.advance(step)
    is_measured = bool(stage.evaluate_every and parts.heldout is not None and step % stage.evaluate_every == 0)
    if not (step in (1, stage.steps) or step % stage.log_every == 0 or is_measured):
        return
    held = _held(stage, parts, state) if is_measured else {}
    parts.metrics.log({
        "step": step, "epoch": parts.feed.epoch(step), "loss": measured.loss, **measured.parts, **held, "norm": norm,
        "rate": stage.learning_rate * rate_factor(stage, step - 1), "tokens": state.tokens,
        "tokens_per_second": (state.tokens - state.logged[0]) / (state.seconds - state.logged[1]),
        "seconds": state.seconds,
    })  # fmt: skip
    state.logged = (state.tokens, state.seconds)
