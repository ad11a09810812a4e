"""The wheel: plan, admit, run once, advance each, roll caches back, emit events. Knows no mode."""

import logging
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import count
from typing import Any

from trimode.decoding import Decoder
from trimode.engine.checks import check_adapter, check_going, check_limits, check_logprobs, check_prompt
from trimode.engine.detokenizer import Detokenizer
from trimode.engine.events import Event
from trimode.engine.memory import Memory
from trimode.engine.request import Request
from trimode.engine.runner import Job, run
from trimode.engine.scheduler import Scheduler
from trimode.engine.turn import advance, job_of
from trimode.engine.witness import Witness
from trimode.errors import InvalidInput
from trimode.models.adapters import Adapter
from trimode.models.transformer import Model
from trimode.numerics.sampling import Sampling
from trimode.spans import FinishReason, Picks, Span
from trimode.tokenizer import Tokenizer

log = logging.getLogger("trimode.engine")


class Engine:
    """Runs requests of any modes and lengths together; each gets the tokens it would get alone."""

    def __init__(
        self, model: Model, tokenizer: Tokenizer | None = None, *, max_rows: int = 2048, max_running: int = 64,
        max_cached: int | None = None, reuses: bool = False, drafter: Adapter | None = None, isolates: bool = False,
    ) -> None:  # fmt: skip
        """At most `max_rows` rows in a forward, `max_running` requests at a time, and, if given, `max_cached` positions
        in all caches together: who needs more waits, and where they run out, the youngest are preempted. The oldest
        runs in any case. `reuses`: keep, within `max_cached`, what was computed for final tokens, for texts that begin
        with the same.
        `drafter` holds for the drafts of every request: it changes how many of them hold, and no answer.
        `isolates`: after a forward that fails each request runs alone, and one that fails then ends with `error`; else
        `step` raises."""
        if max_rows < 1 or max_running < 1:
            raise InvalidInput(f"max_rows is {max_rows} and max_running {max_running}, both must be at least 1")
        if max_cached is not None and max_cached < 1:
            raise InvalidInput(f"max_cached is {max_cached}, allowed is at least 1, or None for no limit")
        check_adapter(model, drafter, draft=True)
        self.model, self.tokenizer, self.drafter = model, tokenizer, drafter
        self.max_cached, self.isolates = max_cached, isolates
        self.memory = Memory(model, max_cached, reuses)
        self.queue = Scheduler(self.memory, max_rows, max_running, isolates)
        self._ids = count()

    def submit(
        self, prompt: Sequence[int], decoder: Decoder[Any], *, max_tokens: int = 256,
        sampling: Sampling | None = None, stop: Sequence[str] = (), watch: bool = False,
        adapter: Adapter | None = None, ends: tuple[int, ...] | None = None, logprobs: int | None = None,
        prompt_logprobs: int | None = None, cache_salt: str = "",
    ) -> Request:  # fmt: skip
        """Queue a prompt; the returned request fills up as `step` is called. `watch` adds open canvases to its events.
        `ends`: the tokens that end the text (default: the checkpoint's), those that the decoder was built with.
        `logprobs`: keep the log-probability of each token, and so many of the likeliest there; `prompt_logprobs`: the
        same of the prompt. `cache_salt`: only texts of the same one share what is computed for their beginnings.

        Raises InvalidInput for an empty prompt, ids outside the vocabulary, a prompt that leaves no room, or an adapter
        where the model's forward has none.
        """
        config = self.model.config
        check_adapter(self.model, adapter, draft=False)
        check_prompt(prompt, config.vocab_size, config.mask_token_id, config.context_length)
        check_limits(max_tokens, stop)
        check_logprobs(logprobs, prompt_logprobs, config.commit_block)
        sampling = sampling or Sampling()
        ends = config.eos_token_ids if ends is None else ends
        sampling.check_against(config.vocab_size, ends, config.mask_token_id, max_tokens)
        if stop and self.tokenizer is None:
            raise InvalidInput("stop needs a tokenizer, and this engine has none")
        end = min(len(prompt) + max_tokens, config.context_length)
        text = Detokenizer(self.tokenizer, stop) if self.tokenizer is not None else None
        is_seen = watch or logprobs is not None or prompt_logprobs is not None
        witness = Witness(len(prompt), config.mask_token_id, logprobs, prompt_logprobs) if is_seen else None
        request = Request(
            id=next(self._ids), tokens=list(prompt), n_prompt=len(prompt), end=end, decoder=decoder,
            state=decoder.start(prompt, end), sampling=sampling,
            ends=ends, usual_ends=config.eos_token_ids, cache=self.memory.new_cache(), text=text, is_watched=watch,
            witness=witness, salt=cache_salt, commit_block=config.commit_block, adapter=adapter,
        )  # fmt: skip
        self.queue.add(request)
        return request

    @property
    def is_idle(self) -> bool:
        return not self.queue.running and not self.queue.waiting

    @property
    def n_running(self) -> int:
        return len(self.queue.running)

    @property
    def n_waiting(self) -> int:
        return len(self.queue.waiting)

    def step(self) -> list[Event]:
        """One forward for as many requests as fit. Does nothing when idle."""
        turns, failed = self.queue.turns()
        events: list[Event | None] = [self.abort(request, "error") for request in failed]
        if turns:
            jobs = [job_of(request, span) for request, span in turns]
            found = zip(turns, self._picks(jobs), jobs, strict=True)
            events += [self._settle(request, span, picks, job) for (request, span), picks, job in found]
            self.queue.turned(turns)
        return [event for event in events if event is not None]

    def abort(self, request: Request, finish: FinishReason = "cancelled") -> Event:
        """End a request now, keeping what it has; later forwards no longer contain it."""
        self.queue.remove(request)
        if request.finish is None:
            request.finish = finish
            self._close(request)
        text = request.text.piece(is_last=True) if request.text else ""
        return Event(request=request.id, kind=None, tokens=(), text=text, finish=request.finish)

    def adjust(self, request: Request, **numbers: Any) -> None:
        """Give a request other numbers from its next forward on, an open canvas included: a budget that shrinks, say.

        Raises InvalidInput for one that its decoder does not have, cannot change at work, or that is out of range.
        """
        decoder: Any = request.decoder
        live = [item.name for item in fields(decoder) if item.metadata.get("live")]
        for name in numbers:
            if name not in live:
                allowed = ", ".join(live) or "none"
                raise InvalidInput(f"{name} cannot change while a request of mode {decoder.mode!r} runs, "
                                   f"those that can are: {allowed}")  # fmt: skip
        request.decoder = replace(decoder, **numbers)

    def change(self, request: Request, decoder: Decoder[Any]) -> None:
        """Go on in another mode or with other parameters: what follows is what `decoder` writes after the text so far.

        Applies at once. Final tokens and their cache stay, an open canvas or draft is thrown away; the next forward is
        of kind `prefill`, as at any start. Raises InvalidInput for a request that has ended.
        """
        check_going(request, "changed")
        request.decoder, request.state = decoder, decoder.start(request.tokens, request.end)
        request.n_recomputed = 0
        n_readable = len(request.tokens) - 1  # a start reads after the last token
        self.memory.cut(request, n_readable - n_readable % request.commit_block)

    def preempt(self, request: Request) -> None:
        """Take a request's cache and put it at the end of the waiting queue. Its tokens stay the same.

        When it runs again, what was cached (prompt and answer so far) is computed anew before its decoder goes on where
        it was, an open canvas included. These forwards read nothing and are counted apart, as `prefill_parts`; the
        other counts go on as if nothing had happened. A waiting request stays where it is.
        Raises InvalidInput for a request that has ended.
        """
        check_going(request, "preempted")
        if request in self.queue.running:
            self.queue.preempt(request)

    def _picks(self, jobs: list[Job]) -> Sequence[Picks | None]:
        """What one forward of all jobs found; where that fails, what a forward of each did, None where it fails too."""
        try:
            return run(self.model, jobs, self.drafter)
        except Exception:
            if not self.isolates:
                raise
            log.exception("a forward of %d requests failed, each runs alone", len(jobs))
        return [self._alone(job) for job in jobs]

    def _alone(self, job: Job) -> Picks | None:
        try:
            return run(self.model, [job], self.drafter)[0]
        except Exception:
            log.exception("a forward of one request failed")
            return None

    def _settle(self, request: Request, span: Span, picks: Picks | None, job: Job) -> Event | None:
        """What picks mean for a request. Without any, or where that fails, it ends with `error`."""
        event = None
        try:
            if picks is None:
                request.finish = "error"
            else:
                event = advance(request, span, picks, job, self.tokenizer)
        except Exception:
            if not self.isolates:
                raise
            log.exception("request %d cannot go on", request.id)
            request.finish = "error"
        if request.finish is not None:
            self._close(request)
        else:
            self.memory.settle(request)
        if request.finish == "error":
            return Event(request=request.id, kind=span.kind, tokens=(), text="", finish="error")
        return event

    def _close(self, request: Request) -> None:
        request.seconds = time.perf_counter() - request.started_at
        self.memory.release(request)  # nobody reads its cache any more
