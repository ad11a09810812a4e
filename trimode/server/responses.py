"""Answers as OpenAI's responses tell them: the stateless part, a text in and a text out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from trimode.engine.completion import Completion
from trimode.engine.events import Event
from trimode.server.dialect import Json, costs, fresh_id, now, sse
from trimode.server.refusals import Refused, error_body


@dataclass(slots=True, kw_only=True)
class Responses:
    """One response of one message. Its events are numbered, and tell the text again where it ends."""

    model: str
    n_prompt: int
    asked: Json  # fields that the response repeats
    id: str = field(default_factory=lambda: fresh_id("resp_"))
    message_id: str = field(default_factory=lambda: fresh_id("msg_"))
    created: int = field(default_factory=now)
    n_events: int = 0

    def whole(self, done: Sequence[Completion]) -> Json:
        (one,) = done
        return self._response(_status(one), one)

    def start(self) -> Iterator[bytes]:
        yield self._event("response.created", response=self._response("in_progress"))
        yield self._event("response.in_progress", response=self._response("in_progress"))
        yield self._event("response.output_item.added", output_index=0, item=self._item("in_progress", []))
        yield self._event("response.content_part.added", **self._place(), part=_part(""))

    def look(self, index: int, seen: Json) -> Iterator[bytes]:
        yield self._event("response.denoise", **self._place(), **seen)

    def piece(self, index: int, event: Event) -> Iterator[bytes]:
        if event.text:
            yield self._event("response.output_text.delta", **self._place(), delta=event.text, logprobs=[])

    def end(self, index: int, done: Completion) -> Iterator[bytes]:
        yield self._event("response.output_text.done", **self._place(), text=done.text, logprobs=[])
        yield self._event("response.content_part.done", **self._place(), part=_part(done.text))
        item = self._item(_status(done), [_part(done.text)])
        yield self._event("response.output_item.done", output_index=0, item=item)

    def close(self, done: Sequence[Completion]) -> Iterator[bytes]:
        response = self.whole(done)
        yield self._event(f"response.{response['status']}", response=response)

    def fail(self, error: Refused) -> Iterator[bytes]:
        told = error_body(error)["error"]
        yield self._event("error", code=told["code"], message=told["message"], param=told["param"])

    def _response(self, status: str, done: Completion | None = None) -> Json:
        is_cut = status == "incomplete"
        return {
            "id": self.id, "object": "response", "created_at": self.created, "status": status, "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None, "model": self.model,
            "output": [self._item(status, [_part(done.text)])] if done else [], "parallel_tool_calls": False,
            "tool_choice": "none", "tools": [], "store": False, "previous_response_id": None, **self.asked,
            "usage": self._usage(done) if done else None,
        }  # fmt: skip

    def _usage(self, done: Completion) -> Json:
        written = done.completion_tokens
        return {
            "input_tokens": self.n_prompt, "input_tokens_details": {"cached_tokens": done.cached_tokens},
            "output_tokens": written, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.n_prompt + written, **costs([done]),
        }  # fmt: skip

    def _item(self, status: str, content: list[Json]) -> Json:
        return {"id": self.message_id, "type": "message", "role": "assistant", "status": status, "content": content}

    def _place(self) -> Json:
        return {"item_id": self.message_id, "output_index": 0, "content_index": 0}

    def _event(self, name: str, /, **fields: Any) -> bytes:
        self.n_events += 1
        return sse({"type": name, "sequence_number": self.n_events - 1, **fields}, name)


def _status(done: Completion) -> str:
    """A text that was cut is incomplete, whatever cut it."""
    return "completed" if done.finish_reason == "stop" else "incomplete"


def _part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
