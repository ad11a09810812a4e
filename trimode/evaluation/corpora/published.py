"""Rows from the train splits of public data sets that somebody has put into a folder: GSM8K and MBPP, as chats.

GSM8K: https://github.com/openai/grade-school-math (MIT). MBPP: https://github.com/google-research/google-research
/tree/master/mbpp (CC-BY 4.0); its problems 601 to 974 are the train split, all others are for evaluation.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trimode.config import Json
from trimode.errors import InvalidInput
from trimode.evaluation.corpora.base import Found, Missing, Row, Sources, chat, repeated
from trimode.options import check_options, option

CALCULATION = re.compile(r"<<.*?>>")  # GSM8K's marks for a calculator
MBPP_TRAIN = range(601, 975)


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A file of the data folder, with the hash that it must have and what it comes under."""

    path: str
    sha256: str
    licence: str
    repeat: int = option(1, "times every row is written", low=1)

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def split(self) -> str:
        return "train"

    def row(self, fields: Json) -> Row | None:
        """A line of the file as a row; None: it is not for training."""
        raise NotImplementedError

    def find(self, sources: Sources) -> Found:
        lines = self._lines(sources.data)
        return Found(rows=lambda: repeated(self.make(lines), self.repeat), inputs={"sha256": self.sha256}, facts={})

    def make(self, lines: Sequence[str]) -> Iterator[Row]:
        for number, line in enumerate(lines, 1):
            try:
                row = self.row(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise InvalidInput(f"{self.path}:{number}: this line is not as published ({error!r})") from None
            if row is not None:
                yield row

    def _lines(self, folder: Path) -> list[str]:
        path = folder / self.path
        try:
            data = path.read_bytes()
        except OSError as error:
            raise Missing(f"{path} cannot be read ({error.strerror}): name its folder with --data-dir") from None
        if (found := hashlib.sha256(data).hexdigest()) != self.sha256:
            raise Missing(f"{path} is not the file that the recipe means: its sha256 is {found}, not {self.sha256}")
        return data.decode("utf-8").strip().split("\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gsm8k(Published):
    """Worked solutions. `calculations` keeps the marks for a calculator, as in <<48/2=24>>."""

    calculations: bool = False

    def row(self, fields: Json) -> Row:
        answer = str(fields["answer"])
        return chat(str(fields["question"]), answer if self.calculations else CALCULATION.sub("", answer))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mbpp(Published):
    """Functions from a sentence and the tests they must pass."""

    def row(self, fields: Json) -> Row | None:
        if int(fields["task_id"]) not in MBPP_TRAIN:
            return None
        return chat(mbpp_question(fields["text"], fields["test_list"]), tidy(str(fields["code"])))


def mbpp_question(text: str, tests: Sequence[str]) -> str:
    """The turn that asks for a program, in training and in evaluation."""
    return f"{text}\nYour code should pass these tests:\n" + "\n".join(tests)


def tidy(code: str) -> str:
    """Lines as Python's own: ended by a newline alone, indented by spaces, with nothing behind them."""
    return "\n".join(line.expandtabs(4).rstrip() for line in code.splitlines()).strip("\n") + "\n"
