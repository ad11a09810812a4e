"""What `--tasks` names: a suite makes its items and judges answers. Runs no model.

The procedural tasks are here, each twice: `json` has parameters as in training (about what training never saw),
`json:wide` parameters beyond them. Published sets stand in published.py and read files.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimode.errors import InvalidInput
from trimode.evaluation.tasks import TASKS, Split, example
from trimode.tokenizer import Message

PUBLISHED = ("gsm8k", "humaneval", "mbpp", "humaneval_infilling", "spec_bench", "stdlib")
MAX_TOKENS = 512  # of a procedural answer: more than any right one has
WIDE = ":wide"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One prompt: a text the model continues, or the turns of a conversation. (task, key) names it for ever."""

    task: str
    key: str
    prompt: str | tuple[Message, ...]
    max_tokens: int
    stop: tuple[str, ...] = ()
    reference: str | None = None  # the right answer as it would follow the prompt; None where there is none
    facts: Mapping[str, Any] = field(default_factory=dict)  # what the suite's own judge needs


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A named set of items. `items(limit, seed)`: the same for the same two, `limit` None for all there are.

    `judge(item, text)`: whether an answer is right; None where nothing is judged, as for speed prompts. Never raises
    for what a model wrote.
    """

    name: str
    items: Callable[[int | None, int], list[Item]]
    judge: Callable[[Item, str], bool | None]


def suites(
    names: Sequence[str], data_dir: Path | None = None, *, chat: bool = False, allow_unsandboxed: bool = False
) -> list[Suite]:
    """The suites of names and groups, each once, in the order given.

    Raises InvalidInput for an unknown name, a missing data file (with its name and --data-dir), or a suite that runs
    written code where no sandbox can be had and `allow_unsandboxed` does not say that it may.
    """
    expanded = list(dict.fromkeys(single for name in names for single in members(name)))
    return [_suite(name, data_dir, chat, allow_unsandboxed) for name in expanded]


def members(name: str) -> Iterator[str]:
    """The single names of a group, or the name itself. Raises InvalidInput for one nobody knows."""
    groups = {"procedural": tuple(TASKS), "wide": tuple(task + WIDE for task in TASKS), "published": PUBLISHED}
    if name in groups:
        yield from groups[name]
    elif name.removesuffix(WIDE) in TASKS or name in PUBLISHED:
        yield name
    else:
        known = ", ".join([*groups, *TASKS, *PUBLISHED])
        raise InvalidInput(f"task is {name!r}, allowed are {known}, and procedural ones with {WIDE}")


def _suite(name: str, data_dir: Path | None, chat: bool, allow_unsandboxed: bool) -> Suite:
    if name not in PUBLISHED:
        return procedural(name)
    from trimode.evaluation.published import published

    return published(name, data_dir, chat=chat, allow_unsandboxed=allow_unsandboxed)


def procedural(name: str) -> Suite:
    """A task by name, with `:wide` for parameters beyond training's. Its judge is the task's verifier."""
    task = name.removesuffix(WIDE)
    split: Split = "heldout" if task == name else "wide"

    def items(limit: int | None, seed: int) -> list[Item]:
        if limit is None:
            raise InvalidInput(f"task {name!r} never ends: it needs a limit")
        return [_item(name, task, split, seed, index) for index in range(limit)]

    return Suite(name=name, items=items, judge=lambda item, text: TASKS[task].check(item.facts["example"], text))


def _item(name: str, task: str, split: Split, seed: int, index: int) -> Item:
    made = example(task, split, seed, index)
    return Item(
        task=name, key=f"{seed}/{index}", prompt=made.prompt, max_tokens=MAX_TOKENS, reference=made.answer,
        facts={"example": made},
    )  # fmt: skip
