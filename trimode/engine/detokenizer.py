"""Tokens one by one -> text piece by piece. Never sends half a character or the beginning of a stop string."""

from collections.abc import Sequence

from trimode.tokenizer import Tokenizer

REPLACEMENT = "\ufffd"


class Detokenizer:
    """Feeds on final tokens of one request; `sent` is the text given out so far, never taken back."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._window: list[int] = []  # tokens whose bytes may still change how they read
        self._read = 0  # leading tokens of the window whose text is in _text already
        self._text = ""  # all text so far, stop strings included
        self.sent = ""
        self.is_stopped = False

    def add(self, token: int) -> bool:
        """Take one token; True if it completes a stop string. Mutates."""
        self._window.append(token)
        before = self._tokenizer.decode(self._window[: self._read])
        now = self._tokenizer.decode(self._window)
        if now.endswith(REPLACEMENT) and len(self._window) - self._read < 8:
            return False  # a character may be complete with the next token
        searched = max(len(self._text) - max(map(len, self._stop), default=0), 0)
        self._text += now[len(before) :]
        self._window, self._read = self._window[self._read :], len(self._window) - self._read
        found = [at for at in (self._text.find(s, searched) for s in self._stop) if at >= 0]
        if found:
            self._text = self._text[: min(found)]
            self.is_stopped = True
        return self.is_stopped

    def piece(self, is_last: bool = False) -> str:
        """Text that has become certain since the last call. Mutates."""
        if is_last and not self.is_stopped:
            before, now = (self._tokenizer.decode(w) for w in (self._window[: self._read], self._window))
            self._text += now[len(before) :]
            self._window, self._read = self._window[self._read :], len(self._window) - self._read
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
