"""One packed forward: spans of any requests in, picks out. Knows the model and the caches; no queue and no clock."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

from trimode.cache import Cache, Pool
from trimode.models.adapters import Adapter, Applied
from trimode.models.transformer import Model
from trimode.numerics.mixing import mixed
from trimode.numerics.processors import History, Shape
from trimode.numerics.sampling import PLAIN, Draw, Sampling, draw, pick
from trimode.numerics.telling import told
from trimode.numerics.visibility import Serving
from trimode.spans import Layout, Picks, Rows, Score, Span, Told, layout

NOTHING = Rows(token_S=np.empty(0, np.int64), confidence_S=np.empty(0), score_S=np.empty(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A span with the cache it continues and the way its rows choose."""

    span: Span
    cache: Cache[Pool]
    sampling: Sampling
    tokens: Sequence[int] = ()  # prompt and answer so far; looked at only where the sampling reads the text
    n_prompt: int = 0
    adapter: Adapter | None = None
    ends: tuple[int, ...] | None = None  # tokens that end its text (default: the checkpoint's)
    n_best: int = 0  # likeliest tokens that its rows tell
    n_scored: int = 0  # so many commits, the first that are read, tell instead how probable the token after them is
    n_scored_best: int = 0  # and their likeliest


@torch.inference_mode()
def run(model: Model, jobs: Sequence[Job], drafter: Adapter | None = None) -> list[Picks]:
    """Feed all jobs in one forward, with the drafter on their drafts. Writes keys and values behind each cache's
    length, which it leaves alone."""
    with getattr(model, "undisturbed", nullcontext)():  # a backend with threads of its own wants torch's asleep
        return _run(model, jobs, drafter)


def _run(model: Model, jobs: Sequence[Job], drafter: Adapter | None) -> list[Picks]:
    layouts = [layout(job.span) for job in jobs]
    hidden_TD = _hidden(model, jobs, layouts, drafter)
    starts = list(accumulate((len(spelled.tokens) for spelled in layouts), initial=0))
    rows = [start + row for start, spelled in zip(starts, layouts, strict=False) for row in spelled.reads]
    if not rows:
        return [_picks(job.span, NOTHING) for job in jobs]
    mixes = mixes_of(layouts, starts)
    rows += [row for _, row, _ in mixes]  # behind the wanted ones
    wanted = hidden_TD if rows == list(range(len(hidden_TD))) else select(hidden_TD, rows)
    chosen = _read(model, jobs, mixed(model.logits(wanted), [(read, share) for read, _, share in mixes]))
    if len(jobs) == 1:
        return [_picks(jobs[0].span, chosen)]
    ends = accumulate((job.span.n_read for job in jobs), initial=0)
    return [_picks(job.span, part(chosen, a, b)) for job, (a, b) in zip(jobs, pairwise(ends), strict=True)]


def _hidden(model: Model, jobs: Sequence[Job], layouts: Sequence[Layout], drafter: Adapter | None) -> Tensor:
    """The forward itself: all rows of all spans."""
    device, pasts = model.device, [job.cache.length for job in jobs]
    tokens = [token for spelled in layouts for token in spelled.tokens]
    positions = [past + offset for spelled, past in zip(layouts, pasts, strict=True) for offset in spelled.offsets]
    tokens_T, positions_T = (torch.from_numpy(np.array(x, np.int64)).to(device) for x in (tokens, positions))
    visibility = Serving(layouts=layouts, pasts=pasts)
    for job in jobs:
        job.cache.reserve(job.cache.length + job.span.n_rows)
    adapters = adapters_of(jobs, visibility, drafter, device)
    beside = {"adapters": adapters} if adapters else {}
    return model(tokens_T, positions_T, visibility, [job.cache for job in jobs], **beside)


def _read(model: Model, jobs: Sequence[Job], logits_SV: Tensor) -> Rows:
    """What is chosen at the wanted rows of all jobs, and what they tell where somebody asked."""
    never, eos = banned(model.config.mask_token_id, model.device), model.config.eos_token_ids
    chosen = pick(
        logits_SV,
        [d for job in jobs for d in draws(job, eos if job.ends is None else job.ends)],
        never,
        getattr(model, "greedy", None),  # a backend may have a faster way
    )
    if not any(job.n_best or job.n_scored for job in jobs):
        return chosen
    n_best_S, named_S = zip(*(ask for job in jobs for ask in asks_of(job)), strict=True)
    return replace(chosen, told=told(logits_SV, n_best_S, named_S, never))


def adapters_of(
    jobs: Sequence[Job], visibility: Serving, drafter: Adapter | None, device: torch.device
) -> list[Applied]:
    """Every adapter once, with its rows: all those of its jobs, or, the drafter, those of drafts, which then have both.

    Each row is changed by its own adapters alone, whatever shares the forward.
    """
    rows: dict[Adapter, list[int]] = {}
    start = 0
    for job in jobs:
        stop = start + job.span.n_rows
        if job.adapter is not None:
            rows.setdefault(job.adapter, []).extend(range(start, stop))
        start = stop
    if drafter is not None and visibility.draft_rows:
        rows[drafter] = list(visibility.draft_rows)
    return [
        Applied(adapter=adapter, rows=None if len(own) == start else torch.tensor(own, device=device))
        for adapter, own in rows.items()
    ]


def select(hidden_TD: Tensor, rows: list[int]) -> Tensor:
    """Some of the rows [S, D]; on a CPU through numpy, which takes a third of torch's time for a few."""
    if hidden_TD.device.type == "cpu" and hidden_TD.dtype == torch.float32:
        return torch.from_numpy(hidden_TD.numpy()[rows])
    return hidden_TD[torch.tensor(rows, device=hidden_TD.device)]


def mixes_of(layouts: Sequence[Layout], starts: Sequence[int]) -> list[tuple[int, int, float]]:
    """Of all spans together: wanted row (its place among the wanted), packed row to mix in, its share."""
    firsts = accumulate((len(spelled.reads) for spelled in layouts), initial=0)
    return [
        (first + read, start + row, share)
        for first, start, spelled in zip(firsts, starts, layouts, strict=False)
        for read, row, share in spelled.mixes
    ]


@lru_cache
def banned(mask_token_id: int | None, device: torch.device) -> Tensor:
    """The ids nobody may choose."""
    return torch.tensor([] if mask_token_id is None else [mask_token_id], dtype=torch.long, device=device)


def asks_of(job: Job) -> list[tuple[int, int | None]]:
    """Per wanted row how many likeliest tokens it is to tell, and the token it is asked about."""
    first = job.cache.length + 1
    scored = [(job.n_scored_best, job.tokens[first + i]) for i in job.span.read[: job.n_scored]]
    return scored + [(job.n_best, None)] * (job.span.n_read - job.n_scored)


def draws(job: Job, eos_token_ids: tuple[int, ...]) -> list[Draw]:
    """One draw per wanted row, keyed by the position it names: after commit i, or canvas slot j itself."""
    if job.sampling.is_plain_greedy:
        found = [PLAIN["confidence"]] * len(job.span.read)
        for canvas in job.span.canvases:
            found += [PLAIN[canvas.score]] * len(canvas.read)
        return found
    if job.sampling.is_shaped:
        return shaped_draws(job, eos_token_ids)
    span, past = job.span, job.cache.length
    found = [draw(job.sampling, past + i + 1, 0) for i in span.read]
    for canvas in span.canvases:
        first = past + canvas.after
        found += [draw(job.sampling, first + slot, canvas.round, canvas.score) for slot in canvas.read]
    return found


def shaped_draws(job: Job, eos_token_ids: tuple[int, ...]) -> list[Draw]:
    """The same draws, each with what its row may look back on."""
    span, past = job.span, job.cache.length
    reads, n_prompt = job.sampling.reads_text, job.n_prompt
    text = [*job.tokens[:past], *span.commit] if reads else []

    def one(position: int, history: History | None, length: int, round_: int = 0, score: Score = "confidence") -> Draw:
        shape = Shape(sampling=job.sampling, position=position, n_prompt=n_prompt, eos_token_ids=eos_token_ids,
                      history=history, length=length)  # fmt: skip
        return draw(job.sampling, position, round_, score, shape)

    history = History.of(text, n_prompt) if reads and span.read else None
    found = [one(past + i + 1, history, past + i + 1) for i in span.read]
    for canvas in span.canvases:
        first = past + canvas.after
        seen = [*text[:first], *canvas.tokens]
        history = History.of(seen, n_prompt) if reads and canvas.read else None
        found += [one(first + slot, history, len(seen), canvas.round, canvas.score) for slot in canvas.read]
    return found


def part(rows: Rows, start: int, stop: int) -> Rows:
    """Rows [start, stop)."""
    here = slice(start, stop)
    return Rows(
        token_S=rows.token_S[here], confidence_S=rows.confidence_S[here], score_S=rows.score_S[here],
        told=None if rows.told is None else Told(**{f.name: getattr(rows.told, f.name)[here] for f in fields(Told)}),
    )  # fmt: skip


def _picks(span: Span, rows: Rows) -> Picks:
    if not span.canvases:
        return Picks(commit=rows, canvases=())
    sizes = [len(span.read), *(len(canvas.read) for canvas in span.canvases)]
    edges = list(accumulate(sizes, initial=0))
    parts = [part(rows, a, b) for a, b in pairwise(edges)]
    return Picks(commit=parts[0], canvases=tuple(parts[1:]))
