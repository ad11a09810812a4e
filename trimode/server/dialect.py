"""How one API tells an answer: whole, or as a stream of events. One object per answer; texts come in, bytes go out."""

import secrets
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import orjson

from trimode.engine.completion import Completion
from trimode.engine.events import Event, plain
from trimode.server.refusals import Refused

Json = dict[str, Any]


class Dialect(Protocol):
    """An answer on its way out. The parts of a stream come in order: `start`, `look`, `piece` and `end`, `close`."""

    def whole(self, done: Sequence[Completion]) -> Json:
        """The answer as one object."""
        ...

    def start(self) -> Iterator[bytes]:
        """Before any text."""
        ...

    def look(self, index: int, seen: Json) -> Iterator[bytes]:
        """What somebody sees who watches a choice; of no concern to who does not."""
        ...

    def piece(self, index: int, event: Event) -> Iterator[bytes]:
        """What is final of a choice, if it is anything to tell."""
        ...

    def end(self, index: int, done: Completion) -> Iterator[bytes]:
        """A choice has ended."""
        ...

    def close(self, done: Sequence[Completion]) -> Iterator[bytes]:
        """All have ended."""
        ...

    def fail(self, error: Refused) -> Iterator[bytes]:
        """The stream ends here, with an error."""
        ...


def seen(event: Event) -> Json:
    """A forward as who watches is told of it, in `stream_mode` denoise."""
    return {} if event.view is None else {"kind": event.kind, **plain(asdict(event.view))}


def sse(value: Json, name: str | None = None) -> bytes:
    """A server-sent event."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + orjson.dumps(value) + b"\n\n"


def fresh_id(prefix: str) -> str:
    return f"{prefix}{secrets.token_hex(12)}"


def now() -> int:
    """Seconds since 1970."""
    return int(time.time())


def n_prompt_tokens(done: Sequence[Completion], n_prompts: int = 1) -> int:
    """Tokens of the prompts, each once however many answers it has."""
    return sum(item.prompt_tokens for item in done) // max(len(done) // n_prompts, 1)


def costs(done: Sequence[Completion]) -> Json:
    """What the answers cost in our words: forwards by kind, tokens per forward, acceptance length (their mean)."""
    forwards: Counter[str] = Counter()
    for item in done:
        forwards.update(item.forwards)
    written = sum(item.completion_tokens for item in done)
    lengths = [item.acceptance_length for item in done if item.acceptance_length is not None]
    return {
        "generation_mode": done[0].mode,
        "forwards": dict(forwards),
        "tokens_per_forward": round(written / forwards["total"], 4) if forwards["total"] else 0.0,
        "acceptance_length": round(sum(lengths) / len(lengths), 4) if lengths else None,
    }
