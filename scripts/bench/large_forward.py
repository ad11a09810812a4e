"""Milliseconds of a forward of a large network with random weights, by batch and width, beside floor and transformers.

A cell commits `width` tokens in each of `batch` requests behind `past` cached ones and computes logits of every row.
Ours and transformers share one set of weights; transformers has a static cache of exactly past + width positions.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from scripts.bench.floor import Rates, Step, clock, floor_seconds, interleaved
from scripts.bench.reference import reference
from scripts.bench.systems import stored
from trimode.config import Json
from trimode.models.checkpoint import DTYPES, empty, family
from trimode.models.transformer import Transformer
from trimode.numerics.visibility import Masked, serving
from trimode.spans import Span

SECONDS = 3.0  # per cell, about
FEWEST, MOST = 7, 30  # repeats


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What to measure."""

    batch: int
    width: int
    past: int


def random_model(fields: Json, dtype: str, device: torch.device) -> Transformer:
    """Weights drawn on the device: norms 1, matrices N(0, 0.02)."""
    model = empty(family(fields).parse(fields, None), DTYPES[dtype], device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(1.0) if weight.dim() == 1 else weight.normal_(0.0, 0.02, generator=generator)
    return model.eval().requires_grad_(False)


@torch.inference_mode()
def measure(model: Transformer, theirs: Any, cell: Cell, rates: Rates) -> dict[str, Any]:
    """Milliseconds of every system that fits, and a reason for each that does not."""
    makers: dict[str, Callable[[], Step]] = {"ours": lambda: ours(model, cell)}
    if model.device.type == "cuda":
        makers["ours, CUDA graph"] = lambda: graphed(ours(model, cell))
    if theirs is not None:
        makers["transformers, static cache"] = lambda: static(theirs, cell)
    steps, row = {}, asdict(cell)
    for name, make in makers.items():
        step = attempt(make, model.device)
        if isinstance(step, str):
            row[name] = step
        else:
            steps[name] = step
    floor = floor_seconds(model.config, cell.width, cell.past, cell.batch, model.dtype.itemsize, rates)
    return row | {"floor_ms": 1e3 * floor} | milliseconds(steps, model.device)


def attempt(make: Callable[[], Step], device: torch.device) -> Step | str:
    """A step that has run once, or in a few words why there is none."""
    try:
        step = make()
        clock(step, device)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return "does not fit"
    except (RuntimeError, TypeError, AttributeError, ValueError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]:.80}"
    return step


def milliseconds(steps: dict[str, Step], device: torch.device) -> dict[str, Any]:
    """Medians and ranges of all steps, interleaved, with as many repeats as the time allows."""
    if not steps:
        return {}
    one_round = sum(clock(step, device) for step in steps.values())
    repeats = max(FEWEST, min(MOST, int(SECONDS / one_round)))
    found = interleaved(list(steps.values()), device, repeats)
    times = {name: {k: 1e3 * v for k, v in asdict(s).items()} for name, s in zip(steps, found, strict=True)}
    return times | {"repeats": repeats}


def ours(model: Transformer, cell: Cell) -> Step:
    """One forward of all requests. Caches hold noise; their lengths stay, so every run does the same."""
    rows, total = cell.batch * cell.width, cell.past + cell.width
    spans = [Span(commit=tuple(range(6, 6 + cell.width)), kind="verify")] * cell.batch
    caches = [model.new_cache(total) for _ in spans]
    for cache in caches:
        cache.pool.k_LGSK.normal_()
        cache.pool.v_LGSK.normal_()
        cache.keep(cell.past)
    given = serving(spans, [cell.past] * cell.batch).streams(model.dtype, model.device)
    tokens = torch.arange(rows, device=model.device) % 250 + 6
    positions = torch.arange(cell.past, total, device=model.device).repeat(cell.batch)
    return Step(run=lambda: model.logits(model(tokens, positions, Masked(given=given), caches)))


def graphed(step: Step) -> Step:
    """The same kernels, recorded once and replayed without Python."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            step.run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step.run()
    return Step(run=lambda: (graph.replay(), step)[0])  # the step keeps the tensors alive that the graph writes to


def static(theirs: Any, cell: Cell) -> Step:
    """transformers' forward over its static cache, which is set back to `past` before every run."""
    from transformers import StaticCache

    cache = StaticCache(config=theirs.config, max_cache_len=cell.past + cell.width)
    tokens = torch.arange(cell.past, device=theirs.device).expand(cell.batch, -1) % 250 + 6
    theirs(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
    positions = torch.arange(cell.past, cell.past + cell.width, device=theirs.device)[None]

    def rewind() -> None:
        for layer in cache.layers:
            layer.cumulative_length.fill_(cell.past)

    def forward() -> Any:
        return theirs(
            input_ids=tokens[:, :1].expand(-1, cell.width), position_ids=positions, past_key_values=cache,
            use_cache=True,
        ).logits  # fmt: skip

    return Step(run=forward, prepare=rewind)


def twin(model: Transformer, fields: Json) -> Any:
    """transformers' network over the same weights, or None where it is not installed."""
    try:
        return reference(fields, stored(model), model.dtype, model.device)
    except ImportError:
        return None


def cells(batches: Sequence[int], widths: Sequence[int], past: int) -> list[Cell]:
    """Small batches first, so that what is cut by the clock is the largest."""
    return [Cell(batch=batch, width=width, past=past) for batch in batches for width in widths]
