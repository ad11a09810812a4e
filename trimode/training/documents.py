"""One text as tokens, with the parts of it that are to be learned. Knows no noise, no file and no tokenizer."""

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """Tokens of one text; `answers` are half-open ranges of targets, in order. Everything else is prompt, never masked.

    A plain text is one answer from its second token on; a conversation has one for every turn of the assistant, its
    ending token included. `hole` is an answer with text on both sides that is to be learned from both.
    """

    tokens: tuple[int, ...]
    answers: tuple[tuple[int, int], ...]
    hole: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        edges = [edge for answer in self.answers for edge in answer]
        if any(a > b for a, b in pairwise([0, *edges, len(self.tokens)])):
            raise ValueError(f"answers {self.answers} are not ranges in order within {len(self.tokens)} tokens")
        if self.hole is not None and self.answers != (self.hole,):
            raise ValueError("a hole is the only answer of its document")

    @classmethod
    def text(cls, tokens: tuple[int, ...], scored: int = 1) -> "Document":
        """Targets from `scored` on."""
        return cls(tokens=tokens, answers=((min(scored, len(tokens)), len(tokens)),))

    @property
    def n_targets(self) -> int:
        """Positions to be learned."""
        return sum(stop - start for start, stop in self.answers)

    def window(self, start: int, stop: int) -> "Document":
        """The part [start, stop) as a document of its own; its first token is a target only where one stands before."""
        inside = [(max(a, start + 1), min(b, stop)) for a, b in self.answers]
        answers = tuple((a - start, b - start) for a, b in inside if a < b)
        return Document(tokens=self.tokens[start:stop], answers=answers)
