"""What the engine made, in OpenAI's JSON: whole answers, chunks of a stream, usage. Values in, dictionaries out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trimode.engine.completion import Completion


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What stands on top of every object of one answer."""

    id: str
    created: int  # seconds since 1970
    model: str
    is_chat: bool

    def object(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def answer(head: Head, done: Sequence[Completion], n_prompts: int, echoes: Sequence[str]) -> dict[str, Any]:
    """A whole answer. `echoes` stand before the texts."""
    choices = [
        {"index": index, **_whole(head.is_chat, echo + item.text), "logprobs": None,
         "finish_reason": item.finish_reason}
        for index, (item, echo) in enumerate(zip(done, echoes, strict=True))
    ]  # fmt: skip
    kind = "chat.completion" if head.is_chat else "text_completion"
    return head.object(kind) | {"choices": choices, "usage": usage(done, n_prompts)}


def opening(head: Head, index: int, echo: str) -> dict[str, Any]:
    """The first chunk of a choice: its role, or what is echoed."""
    delta = {"delta": {"role": "assistant", "content": ""}} if head.is_chat else {"text": echo}
    return _chunk(head, index, delta)


def piece(head: Head, index: int, text: str) -> dict[str, Any]:
    """Text that is final."""
    return _chunk(head, index, {"delta": {"content": text}} if head.is_chat else {"text": text})


def ending(head: Head, index: int, finish: str) -> dict[str, Any]:
    """The last chunk of a choice."""
    return _chunk(head, index, {"delta": {}} if head.is_chat else {"text": ""}, finish)


def account(head: Head, done: Sequence[Completion], n_prompts: int) -> dict[str, Any]:
    """The last chunk of a stream that was asked for its usage."""
    return _chunk(head) | {"usage": usage(done, n_prompts)}


def usage(done: Sequence[Completion], n_prompts: int) -> dict[str, Any]:
    """Tokens as OpenAI counts them, each prompt once however many answers it has, and what the answers cost."""
    prompt = sum(item.prompt_tokens for item in done) // max(len(done) // n_prompts, 1)
    written = sum(item.completion_tokens for item in done)
    forwards: Counter[str] = Counter()
    for item in done:
        forwards.update(item.forwards)
    lengths = [item.acceptance_length for item in done if item.acceptance_length is not None]
    return {
        "prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written,
        "prompt_tokens_details": {"cached_tokens": 0}, "generation_mode": done[0].mode, "forwards": dict(forwards),
        "tokens_per_forward": round(written / forwards["total"], 4) if forwards["total"] else 0.0,
        "acceptance_length": round(sum(lengths) / len(lengths), 4) if lengths else None,
    }  # fmt: skip


def _whole(is_chat: bool, text: str) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text, "refusal": None}} if is_chat else {"text": text}


def _chunk(
    head: Head, index: int | None = None, content: dict[str, Any] | None = None, finish: str | None = None
) -> dict[str, Any]:
    choices = [] if index is None else [{"index": index, **(content or {}), "logprobs": None, "finish_reason": finish}]
    return head.object("chat.completion.chunk" if head.is_chat else "text_completion") | {"choices": choices}
