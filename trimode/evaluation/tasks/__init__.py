"""Procedural text tasks with exact verifiers: `example` is a pure function of its four arguments.

The split of an example is a hash of its prompt, so no held-out prompt can appear in training at any seed.
"""

import hashlib
import random
from typing import Literal

from trimode.evaluation.tasks import (
    arithmetic,
    csv_table,
    dataclass_spec,
    email_letter,
    function,
    json_object,
    sorting,
    text_transform,
)
from trimode.evaluation.tasks.base import Example, Task

__all__ = ["TASKS", "Example", "Split", "Task", "example", "split_of"]

Split = Literal["train", "heldout"]

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        json_object.TASK,
        csv_table.TASK,
        email_letter.TASK,
        dataclass_spec.TASK,
        function.TASK,
        arithmetic.TASK,
        sorting.TASK,
        text_transform.TASK,
    )
}

_HELDOUT_ONE_IN = 20


def example(task: str, split: Split, seed: int, index: int) -> Example:
    """The example number `index` of a task; drawn again until its prompt falls in `split`."""
    rng = random.Random(_digest(f"{task}/{split}/{seed}/{index}"))
    while True:
        drawn = TASKS[task].make(rng)
        if split_of(drawn.prompt) == split:
            return drawn


def split_of(prompt: str) -> Split:
    """The split a prompt belongs to, whatever seed produced it."""
    return "heldout" if _digest(prompt) % _HELDOUT_ONE_IN == 0 else "train"


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
