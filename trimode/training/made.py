"""Data that a recipe has made for it: the [[data.make]] tables, and the names by which stages call the results.

[[data.make]]
name = "tasks"          # train = ["make:tasks"]
kind = "procedural"     # what makes the rows (evaluation/corpora), and its own fields
rows = 1000
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimode.errors import InvalidInput
from trimode.training.tables import MADE, refuse_unknown

FOLDER = "data"  # of the run's folder: where the rows lie


@dataclass(frozen=True, slots=True, kw_only=True)
class Make:
    """One table as it was written. `fields` are the kind's own, their paths relative to `folder`."""

    name: str
    kind: str
    fields: Mapping[str, Any]
    folder: Path

    def __post_init__(self) -> None:
        if not self.name or set(self.name) & set("/\\\0") or self.name.startswith("."):
            raise InvalidInput(f"[[data.make]]: a name is {self.name!r}, allowed is what can name a file")


def parse_makes(tables: Sequence[Mapping[str, Any]], folder: Path) -> tuple[Make, ...]:
    """The tables of a recipe, each name once. What their kinds make of them is not looked at."""
    made = []
    for number, table in enumerate(tables, 1):
        fields = dict(table)
        for field in ("name", "kind"):
            if not isinstance(fields.get(field), str):
                raise InvalidInput(f"[[data.make]] number {number} lacks {field!r}, a text")
        made.append(Make(name=fields.pop("name"), kind=fields.pop("kind"), fields=fields, folder=folder))
    names = [make.name for make in made]
    if len(set(names)) < len(names):
        raise InvalidInput(f"[[data.make]]: the names {', '.join(names)} must be different")
    return tuple(made)


def refuse_strangers(patterns: Iterable[str], makes: Sequence[Make], where: str) -> None:
    """Refuse make:NAME where no table has the name."""
    refuse_unknown(made_names(patterns), [make.name for make in makes], f"{where}: data.make")


def made_names(patterns: Iterable[str]) -> list[str]:
    """The names among files."""
    return [pattern.removeprefix(MADE) for pattern in patterns if pattern.startswith(MADE)]
