"""Task `class`: a specification becomes a Python dataclass with typed fields and named methods."""

from collections.abc import Callable

from trimode.evaluation.tasks import python_source, values, words
from trimode.evaluation.tasks.base import Draws, Example, Task, ask

_INSTRUCTIONS = (
    "Write a Python dataclass.",
    "Define this dataclass in Python:",
    "Write the Python code of a dataclass with these fields and methods.",
)
_TYPES = {"int": "int", "float": "float", "bool": "bool"}  # every other kind is text

Fields = list[tuple[str, str]]


def make(rng: Draws) -> Example:
    name = values.known_or_invented(rng, words.CLASSES)
    n_fields = rng.choice((5, 6)) if rng.wide else rng.choice((1, 2, 2, 3, 3, 4))
    fields = [(field, _TYPES.get(kind, "str")) for field, kind in values.typed_fields(rng, n_fields)]
    spec = ", ".join(f"{field}: {kind}" for field, kind in fields)
    methods = _methods(rng, name, fields)
    body = rng.choice((f"class {name} with fields {spec}", f"name: {name}\nfields: {spec}"))
    if methods:
        body += f"\nmethods: {', '.join(methods)}"
    answer = "\n".join(["from dataclasses import dataclass\n\n", "@dataclass", f"class {name}:"])
    answer += "".join(f"\n    {field}: {kind}" for field, kind in fields)
    return ask("class", rng.choice(_INSTRUCTIONS), body, "\n\n".join([answer, *methods.values()]))


def check(example: Example, text: str) -> bool:
    return python_source.same_tree(example.answer, text)


TASK = Task(name="class", make=make, check=check)


def _methods(rng: Draws, name: str, fields: Fields) -> dict[str, str]:
    """The source of each chosen method by its name."""
    field, kind = rng.choice(fields)
    makers: dict[str, Callable[[], str]] = {
        "to_dict": lambda: _to_dict(fields),
        "describe": lambda: _describe(name, fields),
        "as_tuple": lambda: _method("as_tuple(self) -> tuple[object, ...]", f"return ({_reads(fields)},)"),
        f"set_{field}": lambda: _method(f"set_{field}(self, value: {kind}) -> None", f"self.{field} = value"),
        f"has_{field}": lambda: _method(f"has_{field}(self) -> bool", f"return bool(self.{field})"),
    }
    chosen = rng.sample(list(makers), rng.choice((0, 1, 1, 1, 2)))
    return {method: makers[method]() for method in chosen}


def _method(signature: str, statement: str) -> str:
    return f"    def {signature}:\n        {statement}"


def _reads(fields: Fields) -> str:
    return ", ".join(f"self.{field}" for field, _ in fields)


def _to_dict(fields: Fields) -> str:
    pairs = ", ".join(f'"{field}": self.{field}' for field, _ in fields)
    return _method("to_dict(self) -> dict[str, object]", f"return {{{pairs}}}")


def _describe(name: str, fields: Fields) -> str:
    pairs = ", ".join(f"{field}={{self.{field}}}" for field, _ in fields)
    return _method("describe(self) -> str", f'return f"{name}({pairs})"')
