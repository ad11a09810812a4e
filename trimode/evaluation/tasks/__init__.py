"""Procedural text tasks with exact verifiers: `example` is a pure function of its four arguments.

The split of an example is a hash of what its prompt asks about, all but the instruction: no held-out input appears in
training at any seed, in whatever words it is asked.
"""

import hashlib
from typing import Literal

from trimode.evaluation.tasks import (
    arithmetic,
    csv_table,
    dataclass_spec,
    dates,
    email_letter,
    function,
    json_object,
    lists,
    sorting,
    sql_query,
    text_transform,
    units,
    yaml_text,
)
from trimode.evaluation.tasks.base import Draws, Example, Task

__all__ = ["TASKS", "Example", "Split", "Task", "example", "split_of"]

Split = Literal["train", "heldout", "wide"]

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        json_object.TASK,
        csv_table.TASK,
        yaml_text.TASK,
        email_letter.TASK,
        dataclass_spec.TASK,
        function.TASK,
        sql_query.TASK,
        arithmetic.TASK,
        sorting.TASK,
        lists.TASK,
        text_transform.TASK,
        dates.TASK,
        units.TASK,
    )
}

_HELDOUT_ONE_IN = 20


def example(task: str, split: Split, seed: int, index: int) -> Example:
    """The example number `index` of a task; drawn again until its prompt falls in `split`.

    `wide` draws with parameters beyond those of the other splits (`Draws`), and only prompts that are no training ones.
    """
    rng = Draws(_digest(f"{task}/{split}/{seed}/{index}"), wide=split == "wide")
    while True:
        drawn = TASKS[task].make(rng)
        if (split_of(drawn.prompt) == "train") == (split == "train"):
            return drawn


def split_of(prompt: str) -> Literal["train", "heldout"]:
    """The side a prompt belongs to, whatever seed produced it and whatever its first line."""
    about = prompt.partition("\n")[2]  # the first line is the instruction
    return "heldout" if _digest(about) % _HELDOUT_ONE_IN == 0 else "train"


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
