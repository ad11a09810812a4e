"""Rows -> documents: what is context and what is to be learned. Knows texts and tokens; no file and no noise."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from trimode.errors import InvalidInput
from trimode.tokenizer import Message, Tokenizer, check_messages
from trimode.training.documents import Document
from trimode.training.sources import Unusable, texts

PROBE = tuple({"role": role, "content": word} for role, word in
              (("user", "3141"), ("assistant", "5926"), ("user", "2718"), ("assistant", "2818")))  # fmt: skip
HALVED = "the text holds half of a surrogate pair"


class Encoder:
    """A tokenizer and the token that ends a text (None: nothing does)."""

    def __init__(self, tokenizer: Tokenizer, eos_token_id: int | None) -> None:
        self.tokenizer, self.eos_token_id = tokenizer, eos_token_id

    @property
    def digest(self) -> str:
        """sha256 of all that decides which tokens a row becomes."""
        parts = (self.tokenizer.backend.to_str(), self.tokenizer.chat_template or "", self.tokenizer.bos_token,
                 self.tokenizer.eos_token, str(self.eos_token_id))  # fmt: skip
        return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def n_ids(self) -> int:
        """One more than the largest id."""
        return max([*self.tokenizer.backend.get_vocab(with_added_tokens=True).values(), self.eos_token_id or 0]) + 1

    def document(self, fields: Any) -> Document:
        """A row's fields as a document with at least one target. Raises Unusable; InvalidInput where no row could do.

        text: every token from the second on, the end of text included. prompt+completion: the completion and the end
        of text. messages: every turn of the assistant with the token that ends it. prefix+middle+suffix: the middle,
        as a hole.
        """
        shape, values = texts(fields)
        if shape == "messages":
            return self.conversation(values["messages"])
        parts = [self._encode(text) for text in values.values()]
        if shape == "prefix":
            return _hole(*parts)
        if not parts[-1]:
            raise Unusable("empty", f"{'completion' if shape == 'prompt' else shape} has no tokens")
        prompt = parts[0] if shape == "prompt" else ()
        end = () if self.eos_token_id is None else (self.eos_token_id,)
        document = Document.text((*prompt, *parts[-1], *end), max(len(prompt), 1))
        if not document.n_targets:
            raise Unusable("empty", "a single token, before which nothing stands")
        return document

    def conversation(self, messages: Any) -> Document:
        """The chat template's tokens; an answer runs from where the template opens the assistant's turn to its ending
        token. An assistant that speaks first is context: nothing asked for it.

        Templates may drop parts of earlier turns (thoughts, say); what counts is the conversation as rendered at its
        end, and a turn that does not start there as it would in serving is refused.
        """
        try:
            check_messages(messages)
        except InvalidInput as error:
            empty = isinstance(messages, Sequence) and not messages
            raise Unusable("empty" if empty else "wrong type", str(error)) from error
        turns = [i for i, message in enumerate(messages) if message["role"] == "assistant" and i > 0]
        if not turns:
            raise Unusable("no answer", "no message of the assistant follows another")
        if any(_is_halved(message["content"]) for message in messages):
            raise Unusable("not UTF-8", HALVED)
        ending, tokens = self.ending, self._chat(messages, opened=False)
        return Document(tokens=tokens, answers=tuple(self._answers(messages, turns, tokens, ending)))

    @cached_property
    def ending(self) -> int:
        """The token with which the chat template ends a turn of the assistant: the last special one it writes."""
        try:
            opened, whole = self._chat(PROBE[:1], opened=True), self._chat(PROBE[:2], opened=False)
        except Unusable as error:
            raise InvalidInput(f"the chat template does not take a question and an answer: {error}") from error
        special = set(self.tokenizer.special.values())
        written = [token for token in whole[len(opened) :] if token in special]
        if not written:
            raise InvalidInput("the chat template ends no turn with a special token: a model could not learn to stop")
        if self._runs_on(written[-1]):
            raise InvalidInput("the chat template ends only the last turn with a special token: answers have no end")
        return written[-1]

    def _runs_on(self, ending: int) -> bool:
        """Whether an answer would reach into the next question."""
        try:
            tokens = self._chat(PROBE, opened=False)
            (start, stop), _ = self._answers(PROBE, (1, 3), tokens, ending)
        except Unusable:  # a template for one turn: it will refuse rows of more
            return False
        return str(PROBE[2]["content"]) in self.tokenizer.decode(tokens[start:stop])

    def _answers(
        self, messages: Sequence[Message], turns: Sequence[int], tokens: tuple[int, ...], ending: int
    ) -> Iterator[tuple[int, int]]:
        stop = 0
        for turn in turns:
            before = self._chat(messages[:turn], opened=True)
            start = len(before)
            if start < stop or tokens[:start] != before or ending not in tokens[start:]:
                raise Unusable("chat template", f"messages[{turn}] is not rendered as the start of an answer would be")
            stop = tokens.index(ending, start) + 1
            yield start, stop

    def _chat(self, messages: Sequence[Message], *, opened: bool) -> tuple[int, ...]:
        ends = {}
        if not self.tokenizer.eos_token and self.eos_token_id is not None:  # else as in serving
            ends["eos_token"] = self.tokenizer.backend.id_to_token(self.eos_token_id) or ""
        try:
            return tuple(self.tokenizer.encode_chat(messages, add_generation_prompt=opened, **ends))
        except InvalidInput as error:
            if self.tokenizer.chat_template is None:
                raise
            raise Unusable("chat template", str(error)) from error

    def _encode(self, text: str) -> tuple[int, ...]:
        if _is_halved(text):
            raise Unusable("not UTF-8", HALVED)
        return tuple(self.tokenizer.encode(text))


def _is_halved(text: str) -> bool:
    """Whether it holds half of a surrogate pair, which JSON can spell (\\ud800) and no text can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _hole(prefix: tuple[int, ...], middle: tuple[int, ...], suffix: tuple[int, ...]) -> Document:
    if not middle or not (prefix or suffix):
        raise Unusable("empty", "middle, or both prefix and suffix, have no tokens")
    hole = (len(prefix), len(prefix) + len(middle))
    return Document(tokens=prefix + middle + suffix, answers=(hole,), hole=hole)
