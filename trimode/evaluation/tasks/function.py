"""Task `function`: a request names a function, its parameters and a behaviour; the answer is its source."""

import ast
import itertools
from types import CodeType

from trimode.evaluation.tasks import python_source, values, words
from trimode.evaluation.tasks.base import Draws, Example, Task, ask
from trimode.evaluation.tasks.behaviours import BEHAVIOURS, LOCALS

_INSTRUCTIONS = (
    "Write a Python function.",
    "Implement this function in Python:",
    "Write Python code for the function below.",
)
_SEPARATORS = ("-", ", ", "; ", " | ", "/", ":", "_", " and ", ".", "+")


def make(rng: Draws) -> Example:
    behaviour = rng.choice(BEHAVIOURS)
    name = f"{values.known_or_invented(rng, words.VERBS)}_{values.identifier(rng)}"
    parameters = values.distinct(rng, len(behaviour.types), taken=LOCALS)
    filling = {
        **dict(zip("abc", parameters, strict=False)),
        "n": rng.randint(2, 99),
        "s": rng.choice(_SEPARATORS),
    }
    typed = ", ".join(f"{p}: {kind}" for p, kind in zip(parameters, behaviour.types, strict=True))
    lines = [f"def {name}({typed}) -> {behaviour.returns}:", *(f"    {line}" for line in behaviour.body)]
    says = behaviour.says.format(**filling)
    called = f"{name}({', '.join(parameters)})"
    body = rng.choice((f"{called} {says}", f"{called}: {says}.", f"signature: {called}\nbehaviour: {says}"))
    return ask("function", rng.choice(_INSTRUCTIONS), body, "\n".join(lines).format(**filling))


def check(example: Example, text: str) -> bool:
    """The same program, or a function of the same signature and the same results on samples."""
    if python_source.same_tree(example.answer, text):
        return True
    good, found = _only_function(example.answer), _only_function(text)
    if good is None or found is None or _signature(good) != _signature(found):
        return False
    samples = _samples(good)
    try:
        codes = [python_source.compiled(ast.Module([function], [])) for function in (good, found)]
    except Exception:  # the code is the model's, and the compiler may refuse it in many ways
        return False
    return all(len({_outcome(code, good.name, sample) for code in codes}) == 1 for sample in samples)


TASK = Task(name="function", make=make, check=check)


def _only_function(text: str) -> ast.FunctionDef | None:
    tree = python_source.parse(text)
    if tree is None or len(tree.body) != 1 or not isinstance(tree.body[0], ast.FunctionDef):
        return None
    return None if tree.body[0].decorator_list else tree.body[0]


def _signature(function: ast.FunctionDef) -> tuple[str, list[str]]:
    return function.name, [argument.arg for argument in function.args.args]


def _samples(good: ast.FunctionDef) -> list[tuple[object, ...]]:
    """Arguments by the annotations of the right answer, close to the numbers it mentions."""
    constants = [node.value for node in ast.walk(good) if isinstance(node, ast.Constant)]
    numbers = [n + step for n in constants if isinstance(n, int) for step in (-1, 0, 1)]
    integers = sorted({-7, 0, 1, 3, 10, *numbers})
    pools: dict[str, list[object]] = {
        "int": [*integers],
        "str": ["", "x", "ab c"],
        "list[int]": [[], [4], [-3, -8], [5, 12, 3, 12], integers],
        "list[str]": [[], ["one"], ["a", "b c", "d"]],
    }
    kinds = [ast.unparse(argument.annotation) for argument in good.args.args if argument.annotation]
    return list(itertools.product(*(pools[kind] for kind in kinds)))


def _outcome(code: CodeType, name: str, sample: tuple[object, ...]) -> str:
    """The result as text (so that True is not 1), or that there is none."""
    copies = tuple(list(value) if isinstance(value, list) else value for value in sample)
    try:
        return repr(python_source.run(code, name, copies))
    except Exception:  # the code is the model's: anything can come out of it, and all of it means "no result"
        return "no result"
