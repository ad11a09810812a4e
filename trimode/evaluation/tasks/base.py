"""The two nouns of every task family: an example, and the task that makes and checks examples."""

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A prompt that ends where the model continues, and the one answer that follows from it."""

    task: str
    prompt: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A family of examples. `check` takes free model text and never raises; no call mutates anything."""

    name: str
    make: Callable[[random.Random], Example]
    check: Callable[[Example, str], bool]


def ask(task: str, instruction: str, body: str, answer: str) -> Example:
    """An example in the one shape all families share: instruction, input, `Answer:`."""
    return Example(task=task, prompt=f"{instruction}\n{body}\nAnswer:\n", answer=answer)


def same_text(example: Example, text: str) -> bool:
    """Equality up to the white space around the text."""
    return text.strip() == example.answer.strip()
