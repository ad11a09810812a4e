"""Reading Python that a model wrote: parse it, compare it, and run one small function of it within limits.

The limits stop accidents (endless loops, huge numbers); they are not a wall against an attacker.
"""

import ast
import sys
import warnings
from collections.abc import Callable
from types import CodeType, FrameType

from trimode.evaluation.tasks.bounds import LimitError, Watch, guarded

_BUILTINS: tuple[Callable[..., object], ...] = (
    *(abs, bool, dict, float, int, len, list, max, min),
    *(reversed, set, sorted, str, tuple),
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
_MAX_STEPS = 2_000
_FILE = "<model>"


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


def compiled(tree: ast.Module) -> CodeType:
    """The program as it may be run; changes the tree. Raises LimitError, or what the compiler raises."""
    _refuse(tree)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compile(guarded(tree), _FILE, "exec")


def run(code: CodeType, name: str, arguments: tuple[object, ...]) -> object:
    """The value of one call of the function `name`; raises whatever the code raises, or LimitError."""
    watch, n_left = Watch(), _MAX_STEPS
    namespace: dict[str, object] = {"__builtins__": {f.__name__: f for f in _BUILTINS} | watch.names()}

    def trace(frame: FrameType, event: str, argument: object) -> object:
        nonlocal n_left
        if frame.f_code.co_filename != _FILE:
            return None
        n_left -= 1
        if n_left < 0:
            raise LimitError("steps")
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        exec(code, namespace)
        return watch.kept(namespace[name](*arguments))  # type: ignore[operator]
    finally:
        sys.settrace(before)


def _refuse(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if isinstance(node, _FORBIDDEN):
            raise LimitError(type(node).__name__)
        if isinstance(node, ast.Attribute) and node.attr not in _METHODS:
            raise LimitError(node.attr)
        if isinstance(node, ast.FormattedValue) and node.format_spec is not None:
            raise LimitError("format")
