"""One request's turn in a forward: the job that its plan makes, and what the picks mean for it. Knows no queue."""

from collections.abc import Sequence
from dataclasses import replace

from trimode.engine.events import Event, View
from trimode.engine.request import Request
from trimode.engine.runner import Job, part
from trimode.engine.viewing import judged, opened, slots
from trimode.engine.witness import Sight, Witness
from trimode.spans import Picks, Span
from trimode.tokenizer import Tokenizer


def job_of(request: Request, span: Span) -> Job:
    """The span as the request wants it run: rows of the prompt are read, too, where it asks about them."""
    scored: Sequence[int] = ()
    n_best, n_prompt_best = 0, 0
    if witness := request.witness:
        scored = witness.unscored(request.cache.length, len(span.commit))
        n_best, n_prompt_best = witness.n_best or 0, witness.n_prompt_best or 0
    return Job(
        span=replace(span, read=(*scored, *span.read)) if scored else span, cache=request.cache,
        sampling=request.sampling, tokens=request.tokens, n_prompt=request.n_prompt, adapter=request.adapter,
        ends=request.ends, n_best=n_best, n_scored=len(scored), n_scored_best=n_prompt_best,
    )  # fmt: skip


def advance(request: Request, span: Span, picks: Picks, job: Job, tokenizer: Tokenizer | None) -> Event | None:
    """Let a request go on by what a forward of `job` found; None where it was a part of a long commit. Mutates."""
    cached, witness, start = request.cache.length, request.witness, len(request.tokens)
    if witness and job.n_scored:
        picks = _scored(request, witness, picks, job)
    if not span.n_read:  # nothing to decide yet
        request.cache.keep(cached + len(span.commit))
        request.counts.add_part(span.kind)
        return None
    step = request.decoder.advance(request.state, span, picks)
    request.state = step.state
    request.cache.keep(step.keep)
    request.counts.forwards[span.kind] += 1
    tokens = request.take(step.tokens, span.kind)
    is_last = request.finish is not None
    if n_guesses := span.n_guesses:  # none counts beyond the end of the text
        request.counts.add_guesses(min(n_guesses, len(tokens)) if is_last else n_guesses, len(step.tokens))
    text = request.text.piece(is_last) if request.text else ""
    event = Event(request=request.id, kind=span.kind, tokens=tokens, text=text, finish=request.finish)
    if witness is None:
        return event
    before = witness.sight
    canvas = None if is_last else request.decoder.view(step.state)
    named = witness.see(span, cached, picks, tokens, canvas)
    view = _view(request, span, before, start, tokenizer) if request.is_watched else None
    return replace(event, named=named, view=view)


def _scored(request: Request, witness: Witness, picks: Picks, job: Job) -> Picks:
    """Keep what rows tell of the prompt -> the picks that the decoder has asked for."""
    n, first = job.n_scored, request.cache.length + 1
    witness.see_prompt([request.tokens[first + i] for i in job.span.read[:n]], part(picks.commit, 0, n))
    return replace(picks, commit=part(picks.commit, n, len(picks.commit.token_S)))


def _view(request: Request, span: Span, before: Sight, start: int, tokenizer: Tokenizer | None) -> View:
    """What is to be seen of a forward that began where the text had `start` tokens."""
    witness, n_prompt, tokens = request.witness, request.n_prompt, request.tokens
    assert witness is not None
    n_final, n = len(tokens) - start, span.n_guesses
    guesses = span.commit[len(span.commit) - n :]
    named = witness.answer[len(witness.answer) - n_final :]
    fates = judged(guesses, named, before.filled, start, request.finish is not None)
    now = opened(Sight() if n_final else before, witness.sight, len(tokens), witness.mask_token_id)
    return View(
        step=witness.step, forwards=request.counts.forwards.total(),
        judged=slots(fates, start - n_prompt, tokens[:start], tokenizer),
        canvas=slots(now, len(tokens) - n_prompt, tokens, tokenizer),
    )  # fmt: skip
