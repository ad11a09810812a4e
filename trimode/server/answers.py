"""Answers as OpenAI's chat completions and completions tell them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from trimode.engine.completion import Completion
from trimode.engine.events import Event, Named
from trimode.server.dialect import Json, costs, fresh_id, n_prompt_tokens, now, sse
from trimode.server.probabilities import Spell, n_characters, of_completion, of_conversation, of_prompt
from trimode.server.refusals import Refused, error_body


class Kind(Protocol):
    """What differs between the two: the words for a text and its log-probabilities, whole and in parts."""

    prefix: str
    object: str
    chunk: str
    is_one_prompt: bool  # of all choices

    def whole(self, text: str) -> Json: ...
    def opening(self, echo: str) -> Json | None: ...
    def part(self, text: str) -> Json: ...
    def logprobs(self, named: Sequence[Named | None], tokens: Sequence[int], spell: Spell, offset: int) -> Json: ...


class Conversation:
    """The assistant's turn."""

    prefix, object, chunk, is_one_prompt = "chatcmpl-", "chat.completion", "chat.completion.chunk", True

    def whole(self, text: str) -> Json:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def opening(self, echo: str) -> Json:
        return {"delta": {"role": "assistant", "content": ""}}

    def part(self, text: str) -> Json:
        return {"delta": {"content": text} if text else {}}

    def logprobs(self, named: Sequence[Named | None], tokens: Sequence[int], spell: Spell, offset: int) -> Json:
        return of_conversation([one for one in named if one], spell)


class Continuation:
    """The text that follows a prompt."""

    prefix, object, chunk, is_one_prompt = "cmpl-", "text_completion", "text_completion", False

    def whole(self, text: str) -> Json:
        return {"text": text}

    def opening(self, echo: str) -> Json | None:
        return {"text": echo} if echo else None

    def part(self, text: str) -> Json:
        return {"text": text}

    def logprobs(self, named: Sequence[Named | None], tokens: Sequence[int], spell: Spell, offset: int) -> Json:
        return of_completion(named, tokens, spell, offset)


@dataclass(slots=True, kw_only=True)
class OpenAI:
    """`prompts`: one for each choice. `tells`, `scores`: log-probabilities of the answers, of the prompts are told."""

    model: str
    kind: Kind
    prompts: Sequence[Sequence[int]]
    spell: Spell
    n_prompts: int = 1
    echo: Callable[[Sequence[int]], str] | None = None  # the text of a prompt, where it stands before the answer
    tells: bool = False
    scores: bool = False
    include_usage: bool = False
    usage_throughout: bool = False  # with every chunk of a stream
    id: str = ""
    created: int = field(default_factory=now)
    texts: list[str] = field(default_factory=list)  # that stand before the answers
    lengths: list[int] = field(default_factory=list)  # characters of the choices so far
    written: list[int] = field(default_factory=list)  # their tokens

    def __post_init__(self) -> None:
        self.id = fresh_id(self.kind.prefix)
        texts = {id(prompt): self.echo(prompt) if self.echo else "" for prompt in self.prompts}
        self.texts = [texts[id(prompt)] for prompt in self.prompts]
        self.lengths, self.written = [len(text) for text in self.texts], [0] * len(self.prompts)

    def whole(self, done: Sequence[Completion]) -> Json:
        above, beside = (self._scored, _nothing) if self.kind.is_one_prompt else (_nothing, self._scored)
        choices = [
            {"index": index, **self.kind.whole(self.texts[index] + item.text),
             "logprobs": self._told(index, item) if self.tells else None, **beside(item), **_ending(item)}
            for index, item in enumerate(done)
        ]  # fmt: skip
        return self._object(self.kind.object) | above(done[0]) | {"choices": choices, "usage": self._usage(done)}

    def start(self) -> Iterator[bytes]:
        for index, text in enumerate(self.texts):
            if (opening := self.kind.opening(text)) is not None:
                yield self._chunk(index, opening)

    def look(self, index: int, seen: Json) -> Iterator[bytes]:
        yield sse(self._object(self.kind.chunk) | {"choices": [], "denoise": {"index": index, **seen}})

    def piece(self, index: int, event: Event) -> Iterator[bytes]:
        named = event.named if self.tells else None
        self.written[index] += len(event.tokens)
        if event.text or named:
            told = None
            if named is not None:
                told = self.kind.logprobs(named, event.tokens, self.spell, self.lengths[index])
                self.lengths[index] += sum(n_characters(token, self.spell) for token in event.tokens)
            yield self._chunk(index, self.kind.part(event.text) | {"logprobs": told})

    def end(self, index: int, done: Completion) -> Iterator[bytes]:
        yield self._chunk(index, self.kind.part(""), _ending(done))

    def close(self, done: Sequence[Completion]) -> Iterator[bytes]:
        if self.include_usage:
            yield sse(self._object(self.kind.chunk) | {"choices": [], "usage": self._usage(done)})
        yield b"data: [DONE]\n\n"

    def fail(self, error: Refused) -> Iterator[bytes]:
        yield sse(error_body(error))

    def _chunk(self, index: int, content: Json, ending: Json | None = None) -> bytes:
        choice = {"index": index, "logprobs": None, **content, **(ending or {"finish_reason": None})}
        return sse(self._object(self.kind.chunk) | {"choices": [choice]} | self._so_far(index))

    def _so_far(self, index: int) -> Json:
        if not self.usage_throughout:
            return {}
        prompt, written = len(self.prompts[index]), self.written[index]
        usage = {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}
        return {"usage": usage}

    def _told(self, index: int, done: Completion) -> Json:
        """Log-probabilities of what the choice holds: of the prompt, too, where it is echoed."""
        named: list[Named | None] = list(done.logprobs or ())
        tokens = list(done.token_ids)
        if self.echo and done.prompt_logprobs is not None:
            named, tokens = [*done.prompt_logprobs, *named], [*self.prompts[index], *tokens]
        return self.kind.logprobs(named, tokens, self.spell, 0)

    def _scored(self, done: Completion) -> Json:
        if not self.scores or done.prompt_logprobs is None:
            return {}
        return {"prompt_logprobs": of_prompt(done.prompt_logprobs, self.spell)}

    def _object(self, name: str) -> Json:
        return {"id": self.id, "object": name, "created": self.created, "model": self.model}

    def _usage(self, done: Sequence[Completion]) -> Json:
        prompt, written = n_prompt_tokens(done, self.n_prompts), sum(item.completion_tokens for item in done)
        return {
            "prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written,
            "prompt_tokens_details": {"cached_tokens": sum(item.cached_tokens for item in done)}, **costs(done),
        }  # fmt: skip


def _nothing(done: Completion) -> Json:
    return {}


def _ending(done: Completion) -> Json:
    """The reason, and, as vLLM tells it, the stop string or token where one it was. A text whose time was over is cut
    like one that is too long."""
    if done.finish_reason == "cancelled":
        return {"finish_reason": "length", "stop_reason": "timeout"}
    return {"finish_reason": done.finish_reason, "stop_reason": done.stop_reason}
