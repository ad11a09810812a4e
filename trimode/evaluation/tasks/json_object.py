"""Task `json`: fields as `key: value` lines or `k=v; k=v` become one typed, indented JSON object."""

import json

from trimode.evaluation.tasks import values, words
from trimode.evaluation.tasks.base import Draws, Example, Task, ask
from trimode.evaluation.tasks.json_text import same_json

_INSTRUCTIONS = (
    "Convert these fields to a JSON object.",
    "Write the following data as JSON:",
    "Turn the fields into one JSON object with typed values.",
)

Value = values.Scalar | list[str] | list[int] | dict[str, values.Scalar]


def make(rng: Draws) -> Example:
    fields = record(rng)
    pairs = [pair for name, value in fields.items() for pair in _pairs(name, value)]
    body = (
        "\n".join(f"{key}: {value}" for key, value in pairs)
        if rng.random() < 0.6
        else "; ".join(f"{key}={value}" for key, value in pairs)
    )
    return ask("json", rng.choice(_INSTRUCTIONS), body, json.dumps(fields, indent=2))


TASK = Task(name="json", make=make, check=same_json)


def record(rng: Draws) -> dict[str, Value]:
    """Fields with values, now and then one that is a list or an object."""
    n_fields = rng.choice((7, 8)) if rng.wide else rng.choice((2, 3, 3, 4, 4, 5, 6))
    flat = values.typed_fields(rng, n_fields)
    fields: dict[str, Value] = {name: values.typed_value(rng, kind) for name, kind in flat}
    if rng.random() < 0.25:
        fields[rng.choice(words.LIST_FIELDS)] = [values.noun(rng) for _ in range(rng.randint(2, 3))]
    if rng.random() < 0.15:
        fields[rng.choice(words.INT_LIST_FIELDS)] = [rng.randrange(100) for _ in range(rng.randint(2, 4))]
    if rng.random() < 0.2:
        inner = values.typed_fields(rng, 2)
        fields[rng.choice(words.NESTED_FIELDS)] = {key: values.typed_value(rng, kind) for key, kind in inner}
    return fields


def _pairs(name: str, value: Value) -> list[tuple[str, str]]:
    """The flat spelling of one field: a list by commas, a nested object by dotted keys."""
    if isinstance(value, dict):
        return [(f"{name}.{key}", values.spelled(inner)) for key, inner in value.items()]
    if isinstance(value, list):
        return [(name, ", ".join(str(item) for item in value))]
    return [(name, values.spelled(value))]
