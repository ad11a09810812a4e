"""Task `csv`: a small table becomes a JSON array with one typed object per line, or such an array a table."""

import json

from trimode.evaluation.tasks import values
from trimode.evaluation.tasks.base import Draws, Example, Task, ask, same_text
from trimode.evaluation.tasks.json_text import same_json

_TO_JSON = (
    "Convert this CSV table to a JSON array of objects.",
    "Rewrite the table as JSON, one object per line:",
    "CSV to JSON, one line per row:",
)
_TO_CSV = ("Convert this JSON array to CSV with a header.", "Rewrite the objects as a CSV table:")
_SHAPES = ((2, 2), (2, 3), (2, 4), (2, 5), (3, 2), (3, 2), (3, 3), (3, 4), (4, 2), (4, 3), (5, 2))
_WIDE = ((2, 7), (3, 5), (3, 6), (4, 4), (5, 3), (6, 2))


def make(rng: Draws) -> Example:
    n_columns, n_rows = rng.choice(_WIDE if rng.wide else _SHAPES)
    fields = values.typed_fields(rng, n_columns)
    rows = [{name: values.typed_value(rng, kind) for name, kind in fields} for _ in range(n_rows)]
    header = ",".join(name for name, _ in fields)
    lines = [",".join(values.spelled(value) for value in row.values()) for row in rows]
    objects = ",\n".join("  " + json.dumps(row) for row in rows)
    table, array = "\n".join([header, *lines]), f"[\n{objects}\n]"
    if rng.random() < 0.65:
        return ask("csv", rng.choice(_TO_JSON), table, array)
    return ask("csv", rng.choice(_TO_CSV), array, table)


def check(example: Example, text: str) -> bool:
    """The same JSON value, or the same table."""
    return (same_json if example.answer.startswith("[") else same_text)(example, text)


TASK = Task(name="csv", make=make, check=check)
