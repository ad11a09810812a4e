"""Task `csv`: a small table becomes a JSON array with one typed object per line."""

import json
import random

from trimode.evaluation.tasks import values
from trimode.evaluation.tasks.base import Example, Task, ask
from trimode.evaluation.tasks.json_text import same_json

_INSTRUCTIONS = (
    "Convert this CSV table to a JSON array of objects.",
    "Rewrite the table as JSON, one object per line:",
    "CSV to JSON, one line per row:",
)
_SHAPES = ((2, 2), (2, 3), (2, 4), (2, 5), (3, 2), (3, 2), (3, 3), (3, 4), (4, 2), (4, 3), (5, 2))


def make(rng: random.Random) -> Example:
    n_columns, n_rows = rng.choice(_SHAPES)
    fields = values.typed_fields(rng, n_columns)
    rows = [{name: values.typed_value(rng, kind) for name, kind in fields} for _ in range(n_rows)]
    header = ",".join(name for name, _ in fields)
    lines = [",".join(values.spelled(value) for value in row.values()) for row in rows]
    objects = ",\n".join("  " + json.dumps(row) for row in rows)
    return ask("csv", rng.choice(_INSTRUCTIONS), "\n".join([header, *lines]), f"[\n{objects}\n]")


TASK = Task(name="csv", make=make, check=same_json)
