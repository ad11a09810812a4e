"""Bounds on the values of a small program: it is rewritten so that whatever it reads or makes is looked at first.

Steps are counted elsewhere (python_source.py). This is for what grows within one of them: `x = [x, x]` over and over,
`a.extend(a)`, `"%99999999d" % 1`, `a.extend(zip(a))`, which never ends.
"""

import ast
from collections.abc import Callable, Iterable

MAX_SIZE = 1_000  # items of a value with all that is in it, characters of a text, bytes of an integer
MAX_LOOKS = 20_000  # at values and their items, in one run
_KEPT, _TIMES, _REST = "<kept>", "<times>", "<rest>"  # names that no program can spell


class LimitError(Exception):
    """The code used something, or more of something, than a small function may."""


def guarded(tree: ast.Module) -> ast.Module:
    """The program with calls of `Watch.names` in it; changes the tree. Raises LimitError for what has no such form."""
    return ast.fix_missing_locations(_Guards().visit(tree))  # type: ignore[no-any-return]


class Watch:
    """Looks at the values of one run, at a bounded number of items in all."""

    def __init__(self) -> None:
        self._left = MAX_LOOKS

    def kept(self, value: object) -> object:
        """The value, or LimitError where it is too large. One that contains itself is."""
        room, inside = MAX_SIZE, [value]
        while inside:
            one = inside.pop()
            size = _size(one)
            room -= size
            self._left -= 1
            if room < 0 or self._left < 0:
                raise LimitError("size")
            if isinstance(one, list | tuple | set | frozenset | dict):
                inside += [*one, *one.values()] if isinstance(one, dict) else one
        return value

    def times(self, left: object, right: object) -> object:
        are_numbers = all(isinstance(one, int | float) for one in (left, right))
        if not are_numbers and any(isinstance(one, int) and one > MAX_SIZE for one in (left, right)):
            raise LimitError("repetition")
        return self.kept(left * right)  # type: ignore[operator]

    def names(self) -> dict[str, Callable[..., object]]:
        """What a rewritten program finds in place of built-in functions: lists for iterators over lists that grow."""
        return {
            _KEPT: self.kept, _TIMES: self.times, _REST: _rest,
            "range": _range, "round": _round, "sum": _sum, "zip": _zip, "enumerate": _enumerate,
        }  # fmt: skip


def _size(value: object) -> int:
    """Bits, characters or items."""
    if isinstance(value, int):
        return value.bit_length() // 8
    return len(value) if isinstance(value, str | bytes | list | tuple | set | frozenset | dict) else 0


def _rest(left: object, right: object) -> object:
    if isinstance(left, str | bytes):
        raise LimitError("format")
    return left % right  # type: ignore[operator]


def _range(*bounds: int) -> range:
    span = range(*bounds)
    if span[MAX_SIZE:]:
        raise LimitError("range")
    return span


def _round(number: float, digits: int | None = None) -> float:
    if digits is not None and abs(digits) > MAX_SIZE:
        raise LimitError("digits")
    return round(number, digits)


def _sum(items: Iterable[float], start: float = 0) -> float:
    if not isinstance(start, int | float):  # of lists, it copies all of them over and over
        raise LimitError("sum")
    return sum(items, start)


def _zip(*columns: list[object], strict: bool = False) -> list[tuple[object, ...]]:
    return list(zip(*columns, strict=strict))


def _enumerate(items: list[object], start: int = 0) -> list[tuple[int, object]]:
    return list(enumerate(items, start))


class _Guards(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.expr:
        return _call(_KEPT, node) if isinstance(node.ctx, ast.Load) else node

    def _visit_made(self, node: ast.expr) -> ast.expr:
        self.generic_visit(node)
        return _call(_KEPT, node)

    visit_Call = visit_ListComp = visit_SetComp = visit_DictComp = _visit_made

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.op, ast.Mult | ast.Mod):
            return _call(_TIMES if isinstance(node.op, ast.Mult) else _REST, node.left, node.right)
        return _call(_KEPT, node)

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        if not isinstance(node.op, ast.Mult | ast.Mod):
            return self.generic_visit(node)
        if not isinstance(node.target, ast.Name):
            raise LimitError("assignment")
        value = ast.BinOp(ast.Name(node.target.id, ast.Load()), node.op, node.value)
        return ast.copy_location(ast.Assign([node.target], self.visit(value)), node)


def _call(name: str, *arguments: ast.expr) -> ast.expr:
    made = ast.Call(ast.Name(name, ast.Load()), list(arguments), [])
    return ast.copy_location(made, arguments[0])
