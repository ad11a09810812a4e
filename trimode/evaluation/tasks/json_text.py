"""Equality of JSON texts by value and by type, tolerant of white space and of the order of keys."""

import json

from trimode.evaluation.tasks.base import Example, last_line


def same_json(example: Example, text: str) -> bool:
    """Whether the text parses to the same JSON value as the answer."""
    return same_value(example.answer, text)


def same_last_json(example: Example, text: str) -> bool:
    """Whether the last line is the right JSON value; the steps before it may differ."""
    return same_value(last_line(example.answer), last_line(text))


def same_value(good: str, text: str) -> bool:
    """Whether both texts parse, and to the same value."""
    found = _canonical(text)
    return found is not None and found == _canonical(good)


def _canonical(text: str) -> str | None:
    # Written out again, because in Python 1 == 1.0 == True.
    try:
        return json.dumps(json.loads(text), sort_keys=True)
    except (ValueError, RecursionError):
        return None
