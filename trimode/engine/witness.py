"""How probable the tokens of one request were where they were chosen. Reads forwards, and changes nothing.

A position of the text is named by a row: that of the commit before it, or that of a canvas slot. A final token has the
row that made it final (a verified guess that of its verifier); a filled slot has the row that filled it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from trimode.engine.events import Named
from trimode.spans import CanvasView, Picks, Rows, Span

UNLIKELIEST = -9999.0  # what OpenAI tells of a token without probability: infinity is no JSON
Places = dict[int, Named]  # by position in the text


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """An open canvas between two forwards, and by position what was said of its filled slots."""

    canvas: CanvasView | None = None
    filled: Places = field(default_factory=dict)


class Witness:
    """Beside a request from its start. `answer` and `prompt` are what was seen so far.

    The first token of a prompt is not in `prompt`: nothing names it.
    """

    def __init__(
        self, n_prompt: int, mask_token_id: int | None, n_best: int | None = None, n_prompt_best: int | None = None
    ) -> None:
        """`n_best` likeliest tokens are kept of each place in the answer, `n_prompt_best` in the prompt.

        None: nobody asked, and of the prompt nothing is kept.
        """
        self.answer: list[Named] = []
        self.prompt: list[Named] = []
        self.sight = Sight()
        self.step = 0  # forwards since the last final token before this one
        self.mask_token_id, self.n_best, self.n_prompt_best = mask_token_id, n_best, n_prompt_best
        self._n_prompt, self._had_final = n_prompt, False

    def is_reading(self, cached: int) -> bool:
        """Whether prompt tokens behind `cached` positions are to be read."""
        return bool(self.unscored(cached, self._n_prompt))

    def unscored(self, cached: int, n_commits: int) -> range:
        """The commits of a span behind `cached` positions that name prompt tokens of which nothing is known yet."""
        if self.n_prompt_best is None:
            return range(0)
        return range(max(len(self.prompt) - cached, 0), min(n_commits, self._n_prompt - 1 - cached))

    def see_prompt(self, tokens: Sequence[int], rows: Rows) -> None:
        """Rows that were read for the prompt's sake, and the tokens that stand in their places. Mutates."""
        told = rows.told
        for row, token in enumerate(tokens):
            assert told is not None
            logprob, rank = max(float(told.named_logprob_S[row]), UNLIKELIEST), int(told.named_rank_S[row])
            best = _best(rows, row, self.n_prompt_best or 0)
            self.prompt.append(Named(token=token, logprob=logprob, best=best, rank=rank))

    def see(
        self, span: Span, cached: int, picks: Picks, final: tuple[int, ...], canvas: CanvasView | None
    ) -> tuple[Named, ...]:
        """A forward behind `cached` positions that made `final` and left `canvas` open -> what was said of `final`.
        Mutates."""
        start = self._n_prompt + len(self.answer)
        stop = start + len(final)
        self.step, self._had_final = (1 if self._had_final else self.step + 1), bool(final)
        commits, slots = self._commits(span, cached, picks), self._slots(span, cached, picks, stop)
        named = tuple(_said(token, start + i, commits, self.sight.filled, slots) for i, token in enumerate(final))
        self.answer += named
        # behind new text stands another canvas, of which this forward knows better than those before
        sources = (slots, self.sight.filled) if final else (self.sight.filled, slots, commits)
        tokens = enumerate(canvas.tokens if canvas else (), start=stop)
        filled = {place: _said(token, place, *sources) for place, token in tokens if token != self.mask_token_id}
        self.sight = Sight(canvas=canvas, filled=filled)
        return named

    def _commits(self, span: Span, cached: int, picks: Picks) -> Places:
        return {cached + i + 1: _named(picks.commit, row, self.n_best or 0) for row, i in enumerate(span.read)}

    def _slots(self, span: Span, cached: int, picks: Picks, stop: int) -> Places:
        """Of canvases; among those for drafts only the one whose anchor is the last final token, before `stop`."""
        found: Places = {}
        for canvas, rows in zip(span.canvases, picks.canvases, strict=True):
            first = cached + canvas.after
            if not canvas.draft or first == stop - 1:
                found |= {first + slot: _named(rows, row, self.n_best or 0) for row, slot in enumerate(canvas.read)}
        return found


def _said(token: int, place: int, *sources: Places) -> Named:
    """What the first source that chose this token there said of it."""
    return next(named for source in sources if (named := source.get(place)) and named.token == token)


def _named(rows: Rows, row: int, n_best: int) -> Named:
    confidence = float(rows.confidence_S[row])
    logprob = max(math.log(confidence), UNLIKELIEST) if confidence > 0 else UNLIKELIEST
    return Named(token=int(rows.token_S[row]), logprob=logprob, best=_best(rows, row, n_best))


def _best(rows: Rows, row: int, n: int) -> tuple[tuple[int, float], ...]:
    if rows.told is None or not n:
        return ()
    tokens, logprobs = rows.told.token_SN[row, :n].tolist(), rows.told.logprob_SN[row, :n].tolist()
    return tuple((token, max(logprob, UNLIKELIEST)) for token, logprob in zip(tokens, logprobs, strict=True))
