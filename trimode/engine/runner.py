"""One packed forward: spans of any requests in, picks out. Knows the model and the caches; no queue and no clock."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from trimode.cache import KVCache
from trimode.models.transformer import Model
from trimode.numerics.sampling import Draw, Sampling, draw, pick
from trimode.numerics.visibility import serving
from trimode.spans import Picks, Rows, Span, layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A span with the cache it continues and the way its rows choose."""

    span: Span
    cache: KVCache
    sampling: Sampling


@torch.inference_mode()
def run(model: Model, jobs: Sequence[Job]) -> list[Picks]:
    """Feed all jobs in one forward. Writes keys and values behind each cache's length, which it leaves alone."""
    device = model.device
    layouts = [layout(job.span) for job in jobs]
    pasts = [job.cache.length for job in jobs]
    tokens = torch.tensor([token for part in layouts for token in part.tokens], device=device)
    positions = torch.tensor(
        [past + offset for part, past in zip(layouts, pasts, strict=True) for offset in part.offsets],
        device=device,
    )
    visibility = serving([job.span for job in jobs], pasts, model.dtype, device)
    for job in jobs:
        job.cache.reserve(job.cache.length + job.span.n_rows)
    hidden_TD = model(tokens, positions, visibility, [job.cache for job in jobs])
    starts = accumulate((len(part.tokens) for part in layouts), initial=0)
    rows = [start + row for start, part in zip(starts, layouts, strict=False) for row in part.reads]
    if not rows:
        return [_picks(job.span, np.empty(0, np.int64), np.empty(0)) for job in jobs]
    wanted = hidden_TD if len(rows) == len(tokens) else hidden_TD[torch.tensor(rows, device=device)]
    banned = torch.tensor([model.config.mask_token_id], device=device)
    token_S, confidence_S = pick(model.logits(wanted), [d for job in jobs for d in draws(job)], banned)
    ends = accumulate((job.span.n_read for job in jobs), initial=0)
    return [_picks(job.span, token_S[a:b], confidence_S[a:b]) for job, (a, b) in zip(jobs, pairwise(ends), strict=True)]


def draws(job: Job) -> list[Draw]:
    """One draw per wanted row, keyed by the position it names: after commit i, or canvas slot j itself."""
    span, past = job.span, job.cache.length
    named = [(past + i + 1, 0) for i in span.read]
    for canvas in span.canvases:
        named += [(past + canvas.after + slot, canvas.round) for slot in canvas.read]
    return [draw(job.sampling, position, round_) for position, round_ in named]


def _picks(span: Span, token_S: NDArray[np.int64], confidence_S: NDArray[np.float64]) -> Picks:
    sizes = [len(span.read), *(len(canvas.read) for canvas in span.canvases)]
    edges = list(accumulate(sizes, initial=0))
    rows = [Rows(token_S=token_S[a:b], confidence_S=confidence_S[a:b]) for a, b in pairwise(edges)]
    return Picks(commit=rows[0], canvases=tuple(rows[1:]))
