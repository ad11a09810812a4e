"""Collections of documents by index, and the views that training needs of them. Knows no file."""

import hashlib
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trimode.errors import InvalidInput
from trimode.training.documents import Document

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Corpus(Protocol):
    """Documents by index, always the same. `fingerprint` names their content: it is what a resumed run compares."""

    @property
    def fingerprint(self) -> str: ...
    def __len__(self) -> int: ...
    def document(self, index: int) -> Document: ...
    def sizes(self) -> Integers:
        """[n, 3]: tokens, targets and answers of every document."""
        ...

    def cuttable(self) -> Flags:
        """[n]: which documents are plain texts, of which every part is as good to learn from."""
        ...

    def place(self, index: int) -> str:
        """Where a person finds this document: file and line."""
        ...


def facts(document: Document) -> tuple[int, int, int, bool]:
    """Tokens, targets, answers, and whether the document may be cut."""
    n = len(document.tokens)
    return n, document.n_targets, len(document.answers), document.hole is None and document.answers == ((1, n),)


class Windows:
    """A corpus in which no document is longer than `max_tokens`.

    Plain texts are cut into windows, of which each but the first starts with the last token of the one before as
    context: every target of the text is a target of exactly one window. Anything else cannot be cut without losing
    what the answers refer to, so it is left out where it is too long (`too_long`: its indices in the whole corpus), or
    where `fits` says so.
    """

    def __init__(self, whole: Corpus, max_tokens: int, fits: Flags | None = None) -> None:
        if max_tokens < 2:
            raise InvalidInput(f"max_tokens is {max_tokens}, allowed is at least 2")
        self.whole, self.max_tokens = whole, max_tokens
        n_tokens, is_text = whole.sizes()[:, 0], whole.cuttable()
        fits = n_tokens <= max_tokens if fits is None else fits
        counts = np.where(is_text, -(-(n_tokens - 1) // (max_tokens - 1)), fits)
        self.too_long: Integers = np.flatnonzero(~is_text & ~fits)
        cut = is_text & (n_tokens > max_tokens)
        self._sources: Integers = np.repeat(np.arange(len(counts)), counts)
        firsts = np.cumsum(counts) - counts
        self._numbers: Integers = np.arange(len(self._sources)) - np.repeat(firsts, counts)
        self._is_cut: Flags = cut[self._sources]

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.whole.fingerprint} windows {self.max_tokens}".encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._sources)

    def document(self, index: int) -> Document:
        document = self.whole.document(int(self._sources[index]))
        if not self._is_cut[index]:
            return document
        start = int(self._numbers[index]) * (self.max_tokens - 1)
        return document.window(start, min(start + self.max_tokens, len(document.tokens)))

    def sizes(self) -> Integers:
        sizes = self.whole.sizes()[self._sources]
        rest = sizes[:, 0] - self._numbers * (self.max_tokens - 1)
        sizes[:, 0] = np.where(self._is_cut, np.minimum(rest, self.max_tokens), sizes[:, 0])
        sizes[:, 1] = np.where(self._is_cut, sizes[:, 0] - 1, sizes[:, 1])
        return sizes

    def cuttable(self) -> Flags:
        return self.whole.cuttable()[self._sources]

    def place(self, index: int) -> str:
        return self.whole.place(int(self._sources[index]))
