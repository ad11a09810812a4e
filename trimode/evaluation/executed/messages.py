"""How the processes around a program talk: JSON behind its length, so that nobody reads beyond his message."""

import json
import os
import struct
from typing import Any


def message(content: Any) -> bytes:
    """The bytes of one message."""
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text


def receive(descriptor: int) -> Any:
    """Read one message. Raises EOFError where there is none."""
    return json.loads(_exactly(descriptor, *struct.unpack("<Q", _exactly(descriptor, 8))))


def _exactly(descriptor: int, n_bytes: int) -> bytes:
    pieces, left = [], n_bytes
    while left:
        pieces.append(os.read(descriptor, min(left, 1 << 16)))
        left -= len(pieces[-1])
        if not pieces[-1]:
            raise EOFError("a message ends early")
    return b"".join(pieces)
