"""A plain single-process training loop: forward, loss, step, one line of log. Owns the clock, not the maths."""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from trimode.errors import TrimodeError
from trimode.models.transformer import Transformer
from trimode.training.batch import Batch
from trimode.training.objectives import Objective, value
from trimode.training.optim import Rates, optimizers, set_rates, wsd


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long, how fast and towards what one stage trains."""

    steps: int
    rates: Rates
    objective: Objective
    warmup: int = 50
    decay_share: float = 0.4
    clip: float = 1.0
    log_every: int = 20


def train(model: Transformer, batches: Iterator[Batch], schedule: Schedule, log: Path) -> None:
    """Run one stage, always to the end of the learning-rate decay, appending a JSON line to `log` every few steps.

    Matrix products run in bfloat16, weights and optimiser in float32. Mutates the model. Call `model.compile()` before
    for speed. A loss that is not a number stops the run and names the step.
    """
    optims = optimizers(model, schedule.rates)
    device = model.embedding.device.type
    start, tokens = time.perf_counter(), 0
    for step, batch in enumerate(islice(batches, schedule.steps)):
        set_rates(optims, wsd(step, schedule.steps, schedule.warmup, int(schedule.steps * schedule.decay_share)))
        with torch.autocast(device, torch.bfloat16):
            sums, counts = schedule.objective.sums(model, batch), schedule.objective.counts(batch)
            loss = value(sums, counts, schedule.objective.weights)
        if not math.isfinite(loss.item()):
            parts = {name: part.item() for name, part in sums.items()}
            raise TrimodeError(f"the loss is not a number at step {step}, before it reached the weights: {parts}")
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
        for optim in optims:
            optim.step()
            optim.zero_grad()
        tokens += batch.ar.count
        if step % schedule.log_every == 0 or step == schedule.steps - 1:
            parts = {name: round(sums[name].item() / n, 4) for name, n in counts.items() if n}
            line = {"step": step, **parts, "norm": round(norm.item(), 3), "targets": tokens,
                    "seconds": round(time.perf_counter() - start, 1)}  # fmt: skip
            with log.open("a") as file:
                file.write(json.dumps(line) + "\n")
