"""The nouns of every task family: an example, the task that makes and checks examples, the draws it is made from."""

import random
from collections.abc import Callable
from dataclasses import dataclass


class Draws(random.Random):
    """A random generator. `wide` asks for parameters beyond training's: more parts, longer numbers, new names."""

    def __init__(self, seed: int | str, *, wide: bool = False) -> None:
        super().__init__(seed)
        self.wide = wide


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
    make: Callable[[Draws], Example]
    check: Callable[[Example, str], bool]


def ask(task: str, instruction: str, body: str, answer: str) -> Example:
    """An example in the one shape all families share: instruction, input, `Answer:`."""
    return Example(task=task, prompt=f"{instruction}\n{body}\nAnswer:\n", answer=answer)


def same_text(example: Example, text: str) -> bool:
    """Equality up to the white space around the text."""
    return text.strip() == example.answer.strip()


def last_line(text: str) -> str:
    """What a worked answer comes to; empty for no text."""
    return text.strip().rpartition("\n")[2].strip()


def same_last_line(example: Example, text: str) -> bool:
    """Whether the last line is right; the steps before it may differ."""
    return last_line(text) == last_line(example.answer)
