"""How the processes around a program talk: a text behind its length, so that nobody reads beyond his message.

Only what a program cannot replace is used here: names bound on import, and methods of built-in types.
"""

from os import read

LENGTH = 8  # bytes of a length, little end first


def message(text: str) -> bytes:
    """The bytes of one message."""
    body = text.encode("utf-8", "surrogatepass")
    return len(body).to_bytes(LENGTH, "little") + body


def receive(descriptor: int) -> str:
    """Read one message. Raises EOFError where there is none."""
    n_bytes = int.from_bytes(_exactly(descriptor, LENGTH), "little")
    return _exactly(descriptor, n_bytes).decode("utf-8", "surrogatepass")


def _exactly(descriptor: int, n_bytes: int) -> bytes:
    found = b""
    while len(found) < n_bytes:
        piece = read(descriptor, n_bytes - len(found))
        if not piece:
            raise EOFError("a message ends early")
        found += piece
    return found
