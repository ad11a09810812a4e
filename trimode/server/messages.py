"""Answers as Anthropic's messages tell them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from trimode.engine.completion import Completion
from trimode.engine.events import Event
from trimode.server.dialect import Json, costs, fresh_id, sse
from trimode.server.refusals import Refused

REASONS = {"stop": "end_turn", "length": "max_tokens"}  # the others have no word there and keep ours
KINDS = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error",
}  # fmt: skip


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
        yield sse(error_body(error), "error")

    def _message(self, content: list[Json], done: Completion | None) -> Json:
        ending = _ending(done) if done else {"stop_reason": None, "stop_sequence": None}
        return {"id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": content,
                **ending, "usage": self._usage(done)}  # fmt: skip

    def _usage(self, done: Completion | None) -> Json:
        found = {"input_tokens": self.n_prompt, "output_tokens": done.completion_tokens if done else 0,
                 "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}  # fmt: skip
        return found | (costs([done]) if done else {})


def error_body(error: Refused) -> Json:
    """Anthropic's shape."""
    return {"type": "error", "error": {"type": KINDS.get(error.status, "api_error"), "message": str(error)}}


def _ending(done: Completion) -> Json:
    if done.finish_reason == "stop" and isinstance(done.stop_reason, str):
        return {"stop_reason": "stop_sequence", "stop_sequence": done.stop_reason}
    return {"stop_reason": REASONS.get(done.finish_reason, done.finish_reason), "stop_sequence": None}


def _named(name: str, /, **fields: object) -> bytes:
    return sse({"type": name, **fields}, name)
