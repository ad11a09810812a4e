"""Answers as OpenAI's chat completions and completions tell them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from trimode.engine.completion import Completion
from trimode.server.dialect import Json, costs, event, fresh_id, n_prompt_tokens, now
from trimode.server.refusals import Refused, error_body


@dataclass(slots=True, kw_only=True)
class OpenAI:
    """`echoes` stand before the texts, one for each choice."""

    model: str
    is_chat: bool
    echoes: Sequence[str]
    n_prompts: int = 1
    include_usage: bool = False
    id: str = ""
    created: int = field(default_factory=now)

    def __post_init__(self) -> None:
        self.id = fresh_id("chatcmpl-" if self.is_chat else "cmpl-")

    def whole(self, done: Sequence[Completion]) -> Json:
        choices = [
            {"index": index, **self._text(echo + item.text), "logprobs": None, **_ending(item)}
            for index, (item, echo) in enumerate(zip(done, self.echoes, strict=True))
        ]
        return self._object("") | {"choices": choices, "usage": self._usage(done)}

    def start(self) -> Iterator[bytes]:
        for index, echo in enumerate(self.echoes):
            yield self._chunk(
                index, {"delta": {"role": "assistant", "content": ""}} if self.is_chat else {"text": echo}
            )

    def piece(self, index: int, text: str) -> Iterator[bytes]:
        yield self._chunk(index, {"delta": {"content": text}} if self.is_chat else {"text": text})

    def end(self, index: int, done: Completion) -> Iterator[bytes]:
        yield self._chunk(index, {"delta": {}} if self.is_chat else {"text": ""}, _ending(done))

    def close(self, done: Sequence[Completion]) -> Iterator[bytes]:
        if self.include_usage:
            yield event(self._object(".chunk") | {"choices": [], "usage": self._usage(done)})
        yield b"data: [DONE]\n\n"

    def fail(self, error: Refused) -> Iterator[bytes]:
        yield event(error_body(error))

    def _chunk(self, index: int, content: Json, ending: Json | None = None) -> bytes:
        choice = {"index": index, **content, "logprobs": None, **(ending or {"finish_reason": None})}
        return event(self._object(".chunk") | {"choices": [choice]})

    def _object(self, part: str) -> Json:
        kind = "chat.completion" + part if self.is_chat else "text_completion"
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _text(self, text: str) -> Json:
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"message": message} if self.is_chat else {"text": text}

    def _usage(self, done: Sequence[Completion]) -> Json:
        prompt, written = n_prompt_tokens(done, self.n_prompts), sum(item.completion_tokens for item in done)
        return {
            "prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written,
            "prompt_tokens_details": {"cached_tokens": 0}, **costs(done),
        }  # fmt: skip


def _ending(done: Completion) -> Json:
    """The reason, and, as vLLM tells it, the stop string or token where one it was."""
    return {"finish_reason": done.finish_reason, "stop_reason": done.stop_reason}
