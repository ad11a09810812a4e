"""Reading Python that a model wrote: parse it, compare it, and run one small function of it within limits.

The limits stop accidents (endless loops, huge numbers); they are not a wall against an attacker.
"""

import ast
import math
import sys
import warnings
from collections.abc import Callable
from types import FrameType

_BUILTINS: tuple[Callable[..., object], ...] = (
    *(abs, bool, dict, enumerate, float, int, len, list, max, min),
    *(reversed, round, set, sorted, str, sum, tuple, zip),
)
# Try is here because a trace function that has raised is switched off; an `except` would escape it.
_FORBIDDEN = (
    *(ast.Import, ast.ImportFrom, ast.While, ast.Try, ast.TryStar, ast.With, ast.ClassDef),
    *(ast.Pow, ast.LShift, ast.Global, ast.Nonlocal),
)
_METHODS = frozenset(
    {
        *("append", "count", "extend", "index", "insert", "items", "join", "keys", "lower", "replace"),
        *("split", "strip", "upper", "values"),
    }
)
_MAX_PRODUCT = 10_000  # of all the constants: with _MAX_SIZE it bounds what one line can build
_MAX_SIZE = 1_000
_MAX_STEPS = 2_000


class LimitError(Exception):
    """The code used something, or more of something, than a small function may."""


def parse(text: str) -> ast.Module | None:
    """The syntax tree, or None for anything that is not Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def same_tree(left: str, right: str) -> bool:
    """Whether two texts are the same program up to layout and comments."""
    trees = parse(left), parse(right)
    if trees[0] is None or trees[1] is None:
        return False
    try:
        return ast.dump(trees[0]) == ast.dump(trees[1])
    except RecursionError:
        return False


def run(tree: ast.Module, name: str, arguments: tuple[object, ...]) -> object:
    """The value of one call of the function `name`; raises whatever the code raises, or LimitError."""
    _refuse(tree)
    namespace: dict[str, object] = {"__builtins__": {f.__name__: f for f in _BUILTINS}}
    namespace["range"] = _short_range
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code = compile(tree, "<model>", "exec")
    return _limited(code, namespace, name, arguments)


def _refuse(tree: ast.Module) -> None:
    constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    if math.prod(max(1, abs(value)) for value in constants if isinstance(value, int)) > _MAX_PRODUCT:
        raise LimitError("constants")
    for node in ast.walk(tree):
        if isinstance(node, _FORBIDDEN):
            raise LimitError(type(node).__name__)
        if isinstance(node, ast.Attribute) and node.attr not in _METHODS:
            raise LimitError(node.attr)
        if isinstance(node, ast.FormattedValue) and node.format_spec is not None:
            raise LimitError("format")


def _short_range(*bounds: int) -> range:
    span = range(*bounds)
    if span[_MAX_SIZE:]:
        raise LimitError("range")
    return span


def _limited(code: object, namespace: dict[str, object], name: str, arguments: tuple[object, ...]) -> object:
    n_left = _MAX_STEPS

    def trace(frame: FrameType, event: str, argument: object) -> object:
        nonlocal n_left
        n_left -= 1
        if n_left < 0 or any(_is_huge(value) for value in frame.f_locals.values()):
            raise LimitError("steps or size")
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        exec(code, namespace)  # type: ignore[arg-type]
        return namespace[name](*arguments)  # type: ignore[operator]
    finally:
        sys.settrace(before)


def _is_huge(value: object) -> bool:
    if isinstance(value, int):
        return value.bit_length() > _MAX_SIZE
    return isinstance(value, str | list | tuple | set | dict) and len(value) > _MAX_SIZE
