"""Rows that are computed, row i from (seed, i) alone: procedural tasks, facts to learn, tokens to be written again."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trimode.errors import InvalidInput
from trimode.evaluation import tasks
from trimode.evaluation.corpora.base import Found, Row, Sources, chat, digest
from trimode.evaluation.tasks import TASKS, arithmetic, example, sorting, text_transform
from trimode.evaluation.tasks.base import Draws
from trimode.options import check_options, option
from trimode.tokenizer import Tokenizer
from trimode.training.encoding import Encoder

SPLITS = ("train", "heldout")


@dataclass(frozen=True, slots=True, kw_only=True)
class Procedural:
    """Procedural tasks, each as often as its weight says (none named: all alike), some as a chat."""

    rows: int = option(10_000, "how many", low=1)
    seed: int = option(0, "of the examples", low=0)
    chat_share: float = option(0.3, "share of rows that are a question and an answer", low=0.0, high=1.0)
    split: str = option("train", "of the tasks", choices=SPLITS)
    tasks: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_options(self)
        for name, weight in self.tasks.items():
            if name not in TASKS:
                raise InvalidInput(f"tasks has {name!r}, allowed are {', '.join(sorted(TASKS))}")
            if not 0 < weight < float("inf"):
                raise InvalidInput(f"tasks: the weight of {name} is {weight}, allowed is above 0")

    def find(self, sources: Sources) -> Found:
        code = digest(Path(tasks.__file__).parent.glob("*.py"))
        return Found(rows=self.make, inputs={"tasks": code}, facts={"tasks": sorted(self.tasks or TASKS)})

    def make(self) -> Iterator[Row]:
        return (self.row(index) for index in range(self.rows))

    def row(self, index: int) -> Row:
        """A pure function of (seed, index)."""
        rng = random.Random(f"{self.seed}/{index}")
        names = sorted(self.tasks or TASKS)
        name = rng.choices(names, [self.tasks.get(name, 1.0) for name in names])[0]
        drawn = example(name, self.split, self.seed, index)  # type: ignore[arg-type]
        if rng.random() < self.chat_share:
            return chat(drawn.prompt, drawn.answer)
        return {"prompt": drawn.prompt, "completion": drawn.answer}


ASKED = {"sort": sorting.fact, "text": text_transform.fact}
FACTS = ("arithmetic", *ASKED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the answers of a task look up, in its words.

    arithmetic: texts of one-digit sums and products. sort: pairs of items, each then written again with how they stand.
    text: words, each then written again in small letters and capitals.
    """

    rows: int = option(1_000, "how many", low=1)
    seed: int = option(0, "of the facts", low=0)
    lines: int = option(10, "facts in a row", low=1)
    task: str = option("arithmetic", "that needs them", choices=FACTS)

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def split(self) -> str:
        return "train"

    def find(self, sources: Sources) -> Found:
        return Found(rows=self.make, inputs={"tasks": digest(Path(tasks.__file__).parent.glob("*.py"))}, facts={})

    def make(self) -> Iterator[Row]:
        return (self.row(index) for index in range(self.rows))

    def row(self, index: int) -> Row:
        """A pure function of (seed, index)."""
        rng = Draws(f"facts/{self.task}/{self.seed}/{index}")
        if self.task not in ASKED:
            return {"text": "\n".join(arithmetic.fact(rng) for _ in range(self.lines))}
        asked, answers = zip(*(ASKED[self.task](rng) for _ in range(self.lines)), strict=True)
        return {"prompt": ", ".join(asked) + "\n", "completion": "\n".join(answers)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """Random tokens as text, to be written again: what teaches a small model to copy."""

    rows: int = option(10_000, "how many", low=1)
    seed: int = option(0, "of the tokens", low=0)
    shortest: int = option(8, "tokens of a text, at least", low=1)
    longest: int = option(48, "tokens of a text, at most", low=1)

    def __post_init__(self) -> None:
        check_options(self)
        if self.shortest > self.longest:
            raise InvalidInput(f"shortest is {self.shortest}, allowed is at most longest, {self.longest}")

    @property
    def split(self) -> str:
        return "train"

    def find(self, sources: Sources) -> Found:
        tokenizer = sources.tokenizer()
        inputs = {"tokenizer": Encoder(tokenizer, None).digest}
        return Found(rows=lambda: self.make(tokenizer), inputs=inputs, facts={})

    def make(self, tokenizer: Tokenizer) -> Iterator[Row]:
        words = plain_tokens(tokenizer)
        return (self.row(index, tokenizer, words) for index in range(self.rows))

    def row(self, index: int, tokenizer: Tokenizer, words: Sequence[int]) -> Row:
        """A pure function of (seed, index) and the vocabulary."""
        rng = random.Random(f"copy/{self.seed}/{index}")
        text = tokenizer.decode(rng.choices(words, k=rng.randint(self.shortest, self.longest)))
        return {"prompt": text + "\n", "completion": text}


def plain_tokens(tokenizer: Tokenizer) -> list[int]:
    """The ids that are not special, and whole characters by themselves."""
    ids = sorted(set(tokenizer.backend.get_vocab(with_added_tokens=True).values()) - set(tokenizer.special.values()))
    return [token for token in ids if "\ufffd" not in tokenizer.decode([token])]
