"""Equality of JSON texts by value and by type, tolerant of white space and of the order of keys."""

import json

from trimode.evaluation.tasks.base import Example


def same_json(example: Example, text: str) -> bool:
    """Whether the text parses to the same JSON value as the answer."""
    found = _canonical(text)
    return found is not None and found == _canonical(example.answer)


def _canonical(text: str) -> str | None:
    # Written out again, because in Python 1 == 1.0 == True.
    try:
        return json.dumps(json.loads(text), sort_keys=True)
    except (ValueError, RecursionError):
        return None
