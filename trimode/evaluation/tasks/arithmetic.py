"""Task `arithmetic`: digit by digit from the right, one table lookup a line, the result grows leftwards."""

import random
import re

from trimode.evaluation.tasks.base import Example, Task, ask

_INSTRUCTIONS = ("Compute step by step:", "Work this out digit by digit.", "Calculate:")
_LENGTHS = (
    (1, 2, 3, 4),
    (3, 4, 3, 2),
)  # numbers of digits and their weights: the small ones carry the lesson


def make(rng: random.Random) -> Example:
    sign = rng.choices("+-x", (4, 4, 3))[0]
    left, right = _number(rng, 4), _number(rng, 4)
    if sign == "-":
        left, right = max(left, right), min(left, right)
    if sign == "x":
        left, right = _number(rng, 3), rng.randint(2, 9)
    lines, result = _STEPS[sign](left, right)
    return ask(
        "arithmetic",
        rng.choice(_INSTRUCTIONS),
        f"{left} {sign} {right}",
        "\n".join([*lines, f"Result: {result}"]),
    )


def check(example: Example, text: str) -> bool:
    """Whether the last line gives the right integer; the steps may differ."""
    found = _result(text)
    return found is not None and found == _result(example.answer)


def add(left: int, right: int) -> tuple[list[str], int]:
    """The lines of a written addition, and the sum."""
    lines, done, carry = [], "", 0
    for x, y in _columns(left, right):
        total = x + y + carry
        done = f"{total % 10}{done}"
        lines.append(f"{x} + {y} + {carry} = {total % 10} carry {total // 10}, so {done}")
        carry = total // 10
    return lines + _last_carry(carry, done), left + right


def subtract(left: int, right: int) -> tuple[list[str], int]:
    """The lines of a written subtraction of the smaller from the larger number, and the difference."""
    lines, done, borrow = [], "", 0
    for x, y in _columns(left, right):
        rest = x - y - borrow
        done = f"{rest % 10}{done}"
        lines.append(f"{x} - {y} - {borrow} = {rest % 10} borrow {int(rest < 0)}, so {done}")
        borrow = int(rest < 0)
    return lines, left - right


def multiply(left: int, right: int) -> tuple[list[str], int]:
    """The lines of a written multiplication by one digit, and the product."""
    lines, done, carry = [], "", 0
    for x in map(int, reversed(str(left))):
        product = x * right
        total = product + carry
        done = f"{total % 10}{done}"
        lines.append(f"{x} x {right} = {product}, {product} + {carry} = {total} carry {total // 10}, so {done}")
        carry = total // 10
    return lines + _last_carry(carry, done), left * right


_STEPS = {"+": add, "-": subtract, "x": multiply}
TASK = Task(name="arithmetic", make=make, check=check)


def _number(rng: random.Random, max_digits: int) -> int:
    n_digits = min(rng.choices(*_LENGTHS)[0], max_digits)
    return rng.randrange(10 ** (n_digits - 1) if n_digits > 1 else 0, 10**n_digits)


def _columns(left: int, right: int) -> list[tuple[int, int]]:
    """Pairs of digits from the least significant one, the shorter number filled with zeros."""
    n_digits = max(len(str(left)), len(str(right)))
    rows = f"{left:0{n_digits}d}", f"{right:0{n_digits}d}"
    return [(int(x), int(y)) for x, y in zip(*map(reversed, rows), strict=True)]


def _last_carry(carry: int, done: str) -> list[str]:
    return [f"carry {carry}, so {carry}{done}"] if carry else []


def _result(text: str) -> int | None:
    match = re.search(r"(?:^|[\s=])(-?[0-9]{1,12})$", text.strip())
    return int(match[1]) if match else None
