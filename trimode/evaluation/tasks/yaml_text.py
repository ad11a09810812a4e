"""Task `yaml`: a JSON object becomes YAML, or YAML a JSON object. Strings that YAML would read as a date are quoted."""

import json
import re

from trimode.evaluation.tasks.base import Draws, Example, Task, ask, same_text
from trimode.evaluation.tasks.json_object import Value, record
from trimode.evaluation.tasks.json_text import same_json
from trimode.evaluation.tasks.values import Scalar, spelled

_TO_YAML = ("Convert this JSON object to YAML.", "Write the object as YAML:")
_TO_JSON = ("Convert this YAML to a JSON object.", "Write the YAML document as JSON:")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


def make(rng: Draws) -> Example:
    fields = record(rng)
    as_json, as_yaml = json.dumps(fields, indent=2), "\n".join(_lines(fields))
    if rng.random() < 0.5:
        return ask("yaml", rng.choice(_TO_YAML), as_json, as_yaml)
    return ask("yaml", rng.choice(_TO_JSON), as_yaml, as_json)


def check(example: Example, text: str) -> bool:
    """The same JSON value, or the same YAML text."""
    return (same_json if example.answer.startswith("{") else same_text)(example, text)


TASK = Task(name="yaml", make=make, check=check)


def _lines(fields: dict[str, Value]) -> list[str]:
    lines: list[str] = []
    for name, value in fields.items():
        if isinstance(value, dict):
            lines += [f"{name}:", *(f"  {key}: {_scalar(inner)}" for key, inner in value.items())]
        elif isinstance(value, list):
            lines += [f"{name}:", *(f"  - {_scalar(item)}" for item in value)]
        else:
            lines.append(f"{name}: {_scalar(value)}")
    return lines


def _scalar(value: Scalar) -> str:
    return f'"{value}"' if isinstance(value, str) and _DATE.fullmatch(value) else spelled(value)
