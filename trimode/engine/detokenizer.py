"""Tokens one by one -> text piece by piece. Never sends half a character or the beginning of a stop string."""

from collections.abc import Sequence

from trimode.tokenizer import Tokenizer

REPLACEMENT = "\ufffd"
UNFINISHED = 3  # bytes a character may still lack, each of which may show as one replacement
LONG = 16  # tokens of context; no character is made of so many


class Detokenizer:
    """Feeds on final tokens of one request; `sent` is the text given out so far, never taken back."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._window: list[int] = []  # the last tokens
        self._known = ""  # as much of the window's text as _text holds
        self._text = ""  # all text so far, up to a stop string
        self.sent = ""
        self.stopped_by: str | None = None  # the stop string that ended the text

    @property
    def is_stopped(self) -> bool:
        return self.stopped_by is not None

    def add(self, token: int) -> bool:
        """Take one token; True if it completes a stop string. Mutates."""
        self._window.append(token)
        text = self._tokenizer.decode(self._window)
        certain = _without_unfinished(text, len(self._window))
        if certain.startswith(self._known):  # else a decoder has taken half a character's neighbours back: wait
            self._take(certain)
        if len(self._window) > LONG:
            self._window = self._window[-LONG // 2 :]
            self._known = _without_unfinished(self._tokenizer.decode(self._window), len(self._window))
        return self.is_stopped

    def _take(self, certain: str) -> None:
        """Add what is new to the text, and cut it at the stop string that is complete first. Mutates."""
        searched = max(len(self._text) - max(map(len, self._stop), default=0), 0)
        self._text += certain[len(self._known) :]
        self._known = certain
        ends = [(at + len(s), at, s) for s in self._stop if (at := self._text.find(s, searched)) >= 0]
        if ends and not self.is_stopped:
            _, stop, self.stopped_by = min(ends)
            self._text = self._text[:stop]

    def piece(self, is_last: bool = False) -> str:
        """Text that has become certain since the last call. Mutates."""
        if is_last and not self.is_stopped:
            self._take(self._tokenizer.decode(self._window))
        held = 0 if is_last or self.is_stopped else self._held_back()
        piece = self._text[len(self.sent) : len(self._text) - held]
        self.sent += piece
        return piece

    def _held_back(self) -> int:
        """Length of the longest end of the text that a stop string begins with."""
        longest = max((len(s) for s in self._stop), default=1) - 1
        for n in range(min(longest, len(self._text)), 0, -1):
            if any(s.startswith(self._text[-n:]) for s in self._stop):
                return n
        return 0


def _without_unfinished(text: str, n_tokens: int) -> str:
    """Text without an end that a next token may turn into a character."""
    certain = text.rstrip(REPLACEMENT)
    return certain if n_tokens < LONG // 2 else max(certain, text[:-UNFINISHED], key=len)
