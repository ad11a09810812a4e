"""A corpus in memory, where the package reads one from disk."""

from collections.abc import Callable
from functools import cached_property

import numpy as np

from trimode.training.corpora import Flags, Integers, facts
from trimode.training.documents import Document


class ProceduralCorpus:
    """n documents made by a pure function of their index; `fingerprint` is to change whenever the function does."""

    def __init__(self, n: int, document: Callable[[int], Document], fingerprint: str) -> None:
        self.n, self.document, self.fingerprint = n, document, fingerprint

    def __len__(self) -> int:
        return self.n

    def sizes(self) -> Integers:
        return self._facts[:, :3]

    def cuttable(self) -> Flags:
        return self._facts[:, 3] > 0

    @cached_property
    def _facts(self) -> Integers:
        """Makes every document once, on first use."""
        documents = map(self.document, range(self.n))
        return np.array([facts(document) for document in documents], np.int64).reshape(-1, 4)

    def place(self, index: int) -> str:
        return f"document {index}"
