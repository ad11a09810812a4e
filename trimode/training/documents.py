"""One text as tokens, with the parts of it that are to be learned. Knows no noise, no file and no tokenizer."""

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Special:
    """Ids that training writes itself: the mask, the end, and the markers of (prefix, suffix, middle) where known.

    With `shifted` the row before a slot names it, as decoders of such a checkpoint read (`canvas_logits`).
    """

    mask_token_id: int
    eos_token_id: int | None = None
    fim: tuple[int, int, int] | None = None
    shifted: bool = False


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

    @property
    def is_text(self) -> bool:
        """Whether there is no prompt: everything behind the first token is to be learned."""
        return self.hole is None and self.answers in [((start, len(self.tokens)),) for start in (0, 1)]

    def window(self, start: int, stop: int) -> "Document":
        """The part [start, stop) as a document of its own; its first token is a target only where one stands before.

        A hole that is cut becomes an ordinary answer.
        """
        inside = [(max(a, start + 1), min(b, stop)) for a, b in self.answers]
        answers = tuple((a - start, b - start) for a, b in inside if a < b)
        is_whole = self.hole is not None and inside == [self.hole] and answers
        return Document(tokens=self.tokens[start:stop], answers=answers, hole=answers[0] if is_whole else None)

    def suffix_first(self, start: int, stop: int, special: Special) -> "Document":
        """Laid out suffix, prefix, middle, each behind its marker (arXiv 2207.14255, SPM); [start, stop) is the middle.

        The middle and the end of text behind it are the answer. An end of text behind the suffix is left out.
        """
        if special.fim is None:
            raise ValueError("a suffix-first layout needs the markers of prefix, suffix and middle")
        prefix_id, suffix_id, middle_id = special.fim
        end = () if special.eos_token_id is None else (special.eos_token_id,)
        suffix = self.tokens[stop:]
        if end and suffix[-1:] == end:
            suffix = suffix[:-1]
        before = (suffix_id, *suffix, prefix_id, *self.tokens[:start], middle_id)
        tokens = (*before, *self.tokens[start:stop], *end)
        return Document(tokens=tokens, answers=((len(before), len(tokens)),))
