"""The behaviours of task `function`, as data: a sentence, the types of the parameters, and one body.

`{a}`, `{b}`, `{c}` stand for parameters, `{n}` for a number, `{s}` for a separator.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What a function does, in words and in Python."""

    says: str
    types: tuple[str, ...]
    returns: str
    body: tuple[str, ...]


def _one(says: str, types: str, returns: str, *body: str) -> Behaviour:
    return Behaviour(says=says, types=tuple(types.split()), returns=returns, body=body)


LOCALS = frozenset({"best", "count", "item", "total", "result"})  # names the bodies use themselves

BEHAVIOURS: tuple[Behaviour, ...] = (
    _one("returns the sum of the squares of {a} and {b}", "int int", "int", "return {a} * {a} + {b} * {b}"),
    _one(
        "clamps {a} between {b} and {c}",
        "int int int",
        "int",
        "if {a} < {b}:",
        "    return {b}",
        "if {a} > {c}:",
        "    return {c}",
        "return {a}",
    ),
    _one("returns whether {a} is a multiple of {n}", "int", "bool", "return {a} % {n} == 0"),
    _one("returns whether {a} is even", "int", "bool", "return {a} % 2 == 0"),
    _one("returns the area of a rectangle with sides {a} and {b}", "int int", "int", "return {a} * {b}"),
    _one("returns {n} times {a} plus {b}", "int int", "int", "return {n} * {a} + {b}"),
    _one("returns the absolute difference of {a} and {b}", "int int", "int", "return abs({a} - {b})"),
    _one(
        "counts the items of {a} greater than {b}",
        "list[int] int",
        "int",
        "count = 0",
        "for item in {a}:",
        "    if item > {b}:",
        "        count += 1",
        "return count",
    ),
    _one(
        "returns the items of {a} smaller than {n}",
        "list[int]",
        "list[int]",
        "return [item for item in {a} if item < {n}]",
    ),
    _one("joins the words in {a} with '{s}'", "list[str]", "str", 'return "{s}".join({a})'),
    _one("repeats the text {a} {b} times", "str int", "str", "return {a} * {b}"),
    _one("returns the text {a} reversed", "str", "str", "return {a}[::-1]"),
    _one(
        "finds the largest item of {a} with a loop",
        "list[int]",
        "int",
        "best = {a}[0]",
        "for item in {a}:",
        "    if item > best:",
        "        best = item",
        "return best",
    ),
    _one(
        "adds up {a} with a loop, starting at {b}",
        "list[int] int",
        "int",
        "total = {b}",
        "for item in {a}:",
        "    total += item",
        "return total",
    ),
    _one("returns the average of {a}", "list[int]", "float", "return sum({a}) / len({a})"),
    _one(
        "multiplies every item of {a} by {n} with a loop",
        "list[int]",
        "list[int]",
        "result = []",
        "for item in {a}:",
        "    result.append(item * {n})",
        "return result",
    ),
)
