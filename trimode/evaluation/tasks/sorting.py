"""Task `sort`: three to eight numbers or words, put in order one after the other; the last line is a JSON list.

Insertion sort, written out: a line names the next item and the sorted list with it, so a line is a copy of the one
before with one item more, and every choice is between two items.
"""

import bisect
import json
from typing import TypeVar

from trimode.evaluation.tasks import words
from trimode.evaluation.tasks.base import Draws, Example, Task, ask
from trimode.evaluation.tasks.json_text import same_last_json

Item = TypeVar("Item", str, int)

_INSTRUCTIONS = ("Sort the list in {} order.", "Put these items in {} order:", "Order: {}. Sort this list.")


def make(rng: Draws) -> Example:
    order = rng.choice(("ascending", "descending"))
    n_items = rng.choice((9, 10)) if rng.wide else rng.choice((3, 3, 4, 4, 5, 5, 6, 7, 8))
    items = rng.sample(words.NOUNS, n_items) if rng.random() < 0.4 else rng.sample(range(100), n_items)
    lines, done = _insertions(items, order == "descending")
    answer = "\n".join([*lines, json.dumps(done)])
    return ask("sort", rng.choice(_INSTRUCTIONS).format(order), _joined(items), answer)


TASK = Task(name="sort", make=make, check=same_last_json)


def compared(left: Item, right: Item) -> str:
    """A line that says how the left of two numbers, or words in the order of letters, stands to the right one."""
    return f"{left}, {right}: {'equal' if left == right else 'smaller' if left < right else 'greater'}"


def fact(rng: Draws) -> tuple[str, str]:
    """Two items, mostly close to each other, and how they stand: every choice of an insertion."""
    if rng.random() < 0.5:
        left, right = rng.sample(words.NOUNS, 2)
        return f"{left} {right}", compared(left, right)
    first = rng.randrange(100)
    second = rng.choice((rng.randrange(100), min(99, first // 10 * 10 + rng.randrange(10)), rng.randrange(10)))
    return f"{first} {second}", compared(first, second)


def _insertions(items: list[str] | list[int], reverse: bool) -> tuple[list[str], list[str | int]]:
    """A line for every item, and the sorted list."""
    lines: list[str] = []
    done: list[str | int] = []
    for item in items:
        bisect.insort(done, item)
        lines.append(f"{item}: {_joined(done[::-1] if reverse else done)}")
    return lines, done[::-1] if reverse else done


def _joined(items: list[str | int] | list[str] | list[int]) -> str:
    return ", ".join(map(str, items))
