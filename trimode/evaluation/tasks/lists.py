"""Task `lists`: one operation on a short list of numbers or words, the answer a JSON list."""

import json
from collections.abc import Callable, Sequence

from trimode.evaluation.tasks import words
from trimode.evaluation.tasks.base import Draws, Example, Task, ask
from trimode.evaluation.tasks.json_text import same_json

Items = list[int] | list[str]
Operation = tuple[str, Sequence[int | str]]  # what is asked for, and what it gives


def make(rng: Draws) -> Example:
    operation = rng.choice(_OPERATIONS)
    n_items = rng.choice((9, 10)) if rng.wide else rng.randint(3, 8)
    is_numeric = operation in _NUMERIC or rng.random() < 0.6
    items: Items = rng.sample(range(100), n_items) if is_numeric else rng.sample(words.NOUNS, n_items)
    if operation is _unique:
        items = _repeated(rng, items)
    wish, result = operation(rng, items)
    instruction = rng.choice(("{}:", "Task: {}.", "Change the list. {}."))
    return ask("lists", instruction.format(wish), ", ".join(map(str, items)), json.dumps(list(result)))


TASK = Task(name="lists", make=make, check=same_json)


def _repeated(rng: Draws, items: Items) -> Items:
    """The list with about a third of its items standing twice."""
    half = items[: len(items) * 2 // 3 + 1]
    doubled = [*half, *rng.choices(half, k=len(items) - len(half))]
    rng.shuffle(doubled)
    return doubled


def _above(rng: Draws, items: Items) -> Operation:
    bound = rng.randint(20, 80)
    return f"Keep the items greater than {bound}", [item for item in items if int(item) > bound]


def _below(rng: Draws, items: Items) -> Operation:
    bound = rng.randint(20, 80)
    return f"Keep the items smaller than {bound}", [item for item in items if int(item) < bound]


def _even(rng: Draws, items: Items) -> Operation:
    return "Keep the even items", [item for item in items if int(item) % 2 == 0]


def _odd(rng: Draws, items: Items) -> Operation:
    return "Keep the odd items", [item for item in items if int(item) % 2]


def _unique(rng: Draws, items: Items) -> Operation:
    return "Keep the first of equal items", list(dict.fromkeys(items))


def _reverse(rng: Draws, items: Items) -> Operation:
    return "Reverse the list", items[::-1]


def _first(rng: Draws, items: Items) -> Operation:
    n = rng.randint(1, min(4, len(items) - 1))
    return f"Take the first {n} items", items[:n]


def _last(rng: Draws, items: Items) -> Operation:
    n = rng.randint(1, min(4, len(items) - 1))
    return f"Take the last {n} items", items[-n:]


def _append(rng: Draws, items: Items) -> Operation:
    new = _new(rng, items)
    return f"Append the item {new}", [*items, new]


def _prepend(rng: Draws, items: Items) -> Operation:
    new = _new(rng, items)
    return f"Put the item {new} in front", [new, *items]


def _remove(rng: Draws, items: Items) -> Operation:
    gone = rng.choice(items)
    return f"Remove the item {gone}", [item for item in items if item != gone]


def _replace(rng: Draws, items: Items) -> Operation:
    old, new = rng.choice(items), _new(rng, items)
    return f"Replace the item {old} with {new}", [new if item == old else item for item in items]


def _new(rng: Draws, items: Items) -> int | str:
    """An item of the same type that is not in the list."""
    pool = range(100) if isinstance(items[0], int) else words.NOUNS
    return rng.choice([item for item in pool if item not in items])


_NUMERIC: tuple[Callable[[Draws, Items], Operation], ...] = (_above, _below, _even, _odd)
_OPERATIONS = (*_NUMERIC, _unique, _reverse, _first, _last, _append, _prepend, _remove, _replace)
