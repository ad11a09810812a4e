"""Task `lists`: one operation on a short list of numbers or words; the last line is a JSON list.

What is chosen from the list stands on lines of its own before it, one for each item: what the decision hangs on, with
all that has to be seen for it, then yes or no; or a number counted up.
"""

import json
from collections.abc import Callable, Sequence
from itertools import compress

from trimode.evaluation.tasks import words
from trimode.evaluation.tasks.base import Draws, Example, Task, ask
from trimode.evaluation.tasks.json_text import same_last_json
from trimode.evaluation.tasks.sorting import compared

Items = list[int] | list[str]
Operation = tuple[str, Sequence[str], Sequence[int | str]]  # what is asked for, the lines before the list, the list


def make(rng: Draws) -> Example:
    operation = rng.choice(_OPERATIONS)
    n_items = rng.choice((9, 10)) if rng.wide else rng.randint(3, 8)
    is_numeric = operation in _NUMERIC or rng.random() < 0.6
    items: Items = rng.sample(range(100), n_items) if is_numeric else rng.sample(words.NOUNS, n_items)
    if operation is _unique:
        items = _repeated(rng, items)
    wish, lines, result = operation(rng, items)
    instruction = rng.choice(("{}:", "Task: {}.", "Change the list. {}."))
    answer = "\n".join([*lines, json.dumps(list(result))])
    return ask("lists", instruction.format(wish), ", ".join(map(str, items)), answer)


TASK = Task(name="lists", make=make, check=same_last_json)


def _chosen(wish: str, items: Items, reasons: Sequence[str], kept: Sequence[bool]) -> Operation:
    """A line for every item, the reason and the decision; then those that are kept."""
    lines = [f"{reason}, {'yes' if keep else 'no'}" for reason, keep in zip(reasons, kept, strict=True)]
    return wish, lines, list(compress(items, kept))


def _counted(items: Sequence[int | str]) -> list[str]:
    return [f"{number}: {item}" for number, item in enumerate(items, 1)]


def _repeated(rng: Draws, items: Items) -> Items:
    """The list with about a third of its items standing twice."""
    half = items[: len(items) * 2 // 3 + 1]
    doubled = [*half, *rng.choices(half, k=len(items) - len(half))]
    rng.shuffle(doubled)
    return doubled


def _above(rng: Draws, items: Items) -> Operation:
    return _bounded(rng, items, "greater")


def _below(rng: Draws, items: Items) -> Operation:
    return _bounded(rng, items, "smaller")


def _bounded(rng: Draws, items: Items, kind: str) -> Operation:
    bound = rng.randint(20, 80)
    reasons = [compared(int(item), bound) for item in items]
    return _chosen(f"Keep the items {kind} than {bound}", items, reasons, [line.endswith(kind) for line in reasons])


def _even(rng: Draws, items: Items) -> Operation:
    return _of_parity(items, "even")


def _odd(rng: Draws, items: Items) -> Operation:
    return _of_parity(items, "odd")


def _of_parity(items: Items, kind: str) -> Operation:
    parities = ["odd" if int(item) % 2 else "even" for item in items]
    reasons = [f"{item}: {parity}" for item, parity in zip(items, parities, strict=True)]
    return _chosen(f"Keep the {kind} items", items, reasons, [parity == kind for parity in parities])


def _unique(rng: Draws, items: Items) -> Operation:
    kept = [item not in items[:i] for i, item in enumerate(items)]
    reasons = [f"{item}: {'first' if keep else 'again'}" for item, keep in zip(items, kept, strict=True)]
    return _chosen("Keep the first of equal items", items, reasons, kept)


def _reverse(rng: Draws, items: Items) -> Operation:
    return "Reverse the list", (), items[::-1]


def _first(rng: Draws, items: Items) -> Operation:
    n = rng.randint(1, min(4, len(items) - 1))
    return f"Take the first {n} items", _counted(items[:n]), items[:n]


def _last(rng: Draws, items: Items) -> Operation:
    n = rng.randint(1, min(4, len(items) - 1))
    return f"Take the last {n} items", _counted(items[: -n - 1 : -1]), items[-n:]


def _append(rng: Draws, items: Items) -> Operation:
    new = _new(rng, items)
    return f"Append the item {new}", (), [*items, new]


def _prepend(rng: Draws, items: Items) -> Operation:
    new = _new(rng, items)
    return f"Put the item {new} in front", (), [new, *items]


def _remove(rng: Draws, items: Items) -> Operation:
    gone = rng.choice(items)
    return f"Remove the item {gone}", (), [item for item in items if item != gone]


def _replace(rng: Draws, items: Items) -> Operation:
    old, new = rng.choice(items), _new(rng, items)
    return f"Replace the item {old} with {new}", (), [new if item == old else item for item in items]


def _new(rng: Draws, items: Items) -> int | str:
    """An item of the same type that is not in the list."""
    pool = range(100) if isinstance(items[0], int) else words.NOUNS
    return rng.choice([item for item in pool if item not in items])


_NUMERIC: tuple[Callable[[Draws, Items], Operation], ...] = (_above, _below, _even, _odd)
_OPERATIONS = (*_NUMERIC, _unique, _reverse, _first, _last, _append, _prepend, _remove, _replace)
