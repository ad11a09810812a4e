"""Answers as Anthropic's messages tell them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from trimode.engine.completion import Completion
from trimode.engine.events import Event
from trimode.server.dialect import Json, costs, fresh_id, sse
from trimode.server.refusals import ANTHROPICS, Refused, error_body

REASONS = {"stop": "end_turn", "length": "max_tokens", "cancelled": "max_tokens"}  # cancelled: its time was over


@dataclass(slots=True, kw_only=True)
class Anthropic:
    """One message of one text block."""

    model: str
    n_prompt: int
    id: str = field(default_factory=lambda: fresh_id("msg_"))

    def whole(self, done: Sequence[Completion]) -> Json:
        (one,) = done
        return self._message([{"type": "text", "text": one.text}], one)

    def start(self) -> Iterator[bytes]:
        yield _named("message_start", message=self._message([], None))
        yield _named("content_block_start", index=0, content_block={"type": "text", "text": ""})

    def look(self, index: int, seen: Json) -> Iterator[bytes]:
        yield _named("denoise", **seen)

    def piece(self, index: int, event: Event) -> Iterator[bytes]:
        if event.text:
            yield _named("content_block_delta", index=0, delta={"type": "text_delta", "text": event.text})

    def end(self, index: int, done: Completion) -> Iterator[bytes]:
        yield _named("content_block_stop", index=0)
        yield _named("message_delta", delta=_ending(done), usage=self._usage(done))

    def close(self, done: Sequence[Completion]) -> Iterator[bytes]:
        yield _named("message_stop")

    def fail(self, error: Refused) -> Iterator[bytes]:
        yield sse(error_body(error, ANTHROPICS), "error")

    def _message(self, content: list[Json], done: Completion | None) -> Json:
        ending = _ending(done) if done else {"stop_reason": None, "stop_sequence": None}
        return {"id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": content,
                **ending, "usage": self._usage(done)}  # fmt: skip

    def _usage(self, done: Completion | None) -> Json:
        written, cached = (done.completion_tokens, done.cached_tokens) if done else (0, 0)
        found = {"input_tokens": self.n_prompt, "output_tokens": written, "cache_read_input_tokens": cached,
                 "cache_creation_input_tokens": 0}  # fmt: skip
        return found | (costs([done]) if done else {})


def _ending(done: Completion) -> Json:
    if done.finish_reason == "stop" and isinstance(done.stop_reason, str):
        return {"stop_reason": "stop_sequence", "stop_sequence": done.stop_reason}
    return {"stop_reason": REASONS[done.finish_reason], "stop_sequence": None}


def _named(name: str, /, **fields: object) -> bytes:
    return sse({"type": name, **fields}, name)
