"""Task `sort`: three to eight small integers or words, put in order, as a JSON list."""

import json
import random

from trimode.evaluation.tasks import values
from trimode.evaluation.tasks.base import Example, Task, ask
from trimode.evaluation.tasks.json_text import same_json

_INSTRUCTIONS = ("Sort the list in {} order.", "Put these items in {} order:", "Order: {}. Sort this list.")


def make(rng: random.Random) -> Example:
    order = rng.choice(("ascending", "descending"))
    n_items = rng.choice((3, 3, 4, 4, 5, 5, 6, 7, 8))
    items = _words(rng, n_items) if rng.random() < 0.4 else [rng.randrange(100) for _ in range(n_items)]
    answer = json.dumps(sorted(items, reverse=order == "descending"))
    return ask("sort", rng.choice(_INSTRUCTIONS).format(order), ", ".join(map(str, items)), answer)


TASK = Task(name="sort", make=make, check=same_json)


def _words(rng: random.Random, n: int) -> list[str]:
    maker = rng.choice((values.noun, values.product, values.first_name, values.city))
    return [maker(rng) for _ in range(n)]
