"""A parameter with its help and its range, declared once on a frozen dataclass: flags, checks and tables follow."""

import math
import sys
from collections.abc import Mapping
from dataclasses import field, fields
from typing import Any

from trimode.errors import InvalidInput

LARGEST = sys.float_info.max  # a `high` that only keeps infinity out


def option(
    default: Any,
    text: str,
    *,
    low: float | None = None,
    high: float = math.inf,
    is_open: bool = False,
    choices: tuple[str, ...] | None = None,
    optional: bool = False,
    live: bool = False,
    is_secret: bool = False,
) -> Any:
    """A parameter with its help and its range [low, high] (is_open: without `low` itself) or its choices.

    An integer `low` asks for whole numbers. None is allowed where it is the default, or `optional` says so.
    `live`: may be changed while a request runs (`Engine.adjust`). `is_secret`: not shown where the value is printed.
    """
    facts = {
        "help": text, "low": low, "high": high, "is_open": is_open, "choices": choices,
        "optional": optional or default is None, "live": live,
    }  # fmt: skip
    return field(default=default, metadata=facts, repr=not is_secret)


def widened(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """What either of two declarations allows; the help is that of the first."""
    out = dict(one)
    for name, choose in (("low", min), ("high", max)):
        both = one[name], other[name]
        out[name] = None if None in both else choose(both)
    if one["choices"] is not None and other["choices"] is not None:
        out["choices"] = tuple(dict.fromkeys((*one["choices"], *other["choices"])))
    return out | {"optional": one["optional"] or other["optional"]}


def check_options(value_of: Any) -> None:
    """Refuse a number outside the range its field declares, naming field and range."""
    for item in fields(value_of):
        value, choices = getattr(value_of, item.name, None), item.metadata.get("choices")
        if value is None and item.metadata.get("optional"):
            continue
        if choices is not None and value not in choices:
            raise InvalidInput(f"{item.name} is {value!r}, allowed are {', '.join(choices)}")
        if item.metadata.get("low") is None:
            continue
        if not _is_within(value, item.metadata["low"], item.metadata["high"], item.metadata["is_open"]):
            raise InvalidInput(f"{item.name} is {value!r}, allowed is {_range(item.metadata)}")


def _is_within(value: Any, low: float, high: float, is_open: bool) -> bool:
    kinds = (int,) if isinstance(low, int) else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        return False
    return low <= value <= high and not (is_open and value == low)


def _range(facts: Any) -> str:
    low, high = facts["low"], facts["high"]
    if facts["is_open"]:
        return f"above {low}" + ("" if high >= LARGEST else f" and at most {high}")
    return f"at least {low}" if high >= LARGEST else f"{low} to {high}"
