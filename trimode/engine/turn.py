"""One request's turn in a forward: the job that its plan makes, and what the picks mean for it. Knows no queue."""

from collections.abc import Sequence
from dataclasses import replace

from trimode.engine.events import Event, View
from trimode.engine.request import Request
from trimode.engine.runner import Job, part
from trimode.engine.viewing import final, opened, rejected, slots
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
    cached, start = request.cache.length, len(request.tokens)
    if job.n_scored:
        picks = _scored(request, picks, job)
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
    return _seen(event, request, span, cached, picks, start, tokenizer) if request.witness else event


def _seen(
    event: Event, request: Request, span: Span, cached: int, picks: Picks, start: int, tokenizer: Tokenizer | None
) -> Event:
    """The event with what was said of its tokens, and what is to be seen of the forward. Mutates the witness."""
    witness = request.witness
    assert witness is not None
    before = witness.sight
    canvas = None if event.finish else request.decoder.view(request.state)
    named = witness.see(span, cached, picks, event.tokens, canvas)
    view = _view(request, witness, span, before, start, tokenizer) if request.is_watched else None
    return replace(event, named=named, view=view)


def _scored(request: Request, picks: Picks, job: Job) -> Picks:
    """Keep what rows tell of the prompt -> the picks that the decoder has asked for."""
    witness = request.witness
    assert witness is not None
    n, first = job.n_scored, request.cache.length + 1
    witness.see_prompt([request.tokens[first + i] for i in job.span.read[:n]], part(picks.commit, 0, n))
    return replace(picks, commit=part(picks.commit, n, len(picks.commit.token_S)))


def _view(
    request: Request, witness: Witness, span: Span, before: Sight, start: int, tokenizer: Tokenizer | None
) -> View:  # fmt: skip
    """What is to be seen of a forward that began where the text had `start` tokens."""
    n_prompt, tokens = request.n_prompt, request.tokens
    named = witness.answer[start - n_prompt :]
    guesses = span.commit[len(span.commit) - span.n_guesses :]
    if request.finish is not None:  # none stands behind the end of the text
        guesses = guesses[: len(named)]
    held, failed = rejected(guesses, named, before.filled, start)
    now = opened(Sight() if named else before, witness.sight, len(tokens), witness.mask_token_id)
    return View(
        step=witness.step, forwards=request.counts.forwards.total(),
        settled=slots(final(guesses, named), start - n_prompt, tokens[:start], tokenizer)
        + slots(failed, start - n_prompt + held, tokens[: start + held], tokenizer),
        canvas=slots(now, len(tokens) - n_prompt, tokens, tokenizer),
    )  # fmt: skip
