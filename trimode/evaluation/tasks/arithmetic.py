"""Task `arithmetic`: digit by digit from the right; a line names all it needs, and the result grows leftwards.

Every line repeats what is left of the numbers, without the digit that is done: the digits to be used are the last ones
in sight, and nothing has to be counted from the end of the prompt.
"""

import random
import re

from trimode.evaluation.tasks.base import Draws, Example, Task, ask

_INSTRUCTIONS = ("Compute step by step:", "Work this out digit by digit.", "Calculate:")
_LENGTHS = ((1, 2, 3, 4), (3, 4, 3, 2))  # numbers of digits and their weights: the small ones carry the lesson


def make(rng: Draws) -> Example:
    sign = rng.choices("+-x", (4, 4, 3))[0]
    left, right = _number(rng, 4), _number(rng, 4)
    if sign == "-":
        left, right = max(left, right), min(left, right)
    if sign == "x":
        left, right = _number(rng, 3), rng.randint(2, 9)
    lines, result = _STEPS[sign](left, right)
    body = "\n".join([*lines, f"Result: {result}"])
    return ask("arithmetic", rng.choice(_INSTRUCTIONS), f"{left} {sign} {right}", body)


def check(example: Example, text: str) -> bool:
    """Whether the last line gives the right integer; the steps may differ."""
    found = _result(text)
    return found is not None and found == _result(example.answer)


def add(left: int, right: int) -> tuple[list[str], int]:
    """The lines of a written addition, and the sum."""
    lines: list[str] = []
    done, carry, a, b = "", 0, left, right
    while a or b or carry or not lines:
        total = a % 10 + b % 10 + carry
        done = f"{total % 10}{done}"
        lines.append(f"{a} + {b} carry {carry}: {a % 10} + {b % 10} + {carry} = {total:02d}, so {done}")
        a, b, carry = a // 10, b // 10, total // 10
    return lines, left + right


def subtract(left: int, right: int) -> tuple[list[str], int]:
    """The lines of a written subtraction of the smaller from the larger number, and the difference."""
    lines: list[str] = []
    done, borrow, a, b = "", 0, left, right
    while a or not lines:
        rest = a % 10 - b % 10 - borrow
        done = f"{rest % 10}{done}"
        step = f"{a % 10} - {b % 10} - {borrow} = {rest % 10} borrow {int(rest < 0)}"
        lines.append(f"{a} - {b} borrow {borrow}: {step}, so {done}")
        a, b, borrow = a // 10, b // 10, int(rest < 0)
    return lines, left - right


def multiply(left: int, right: int) -> tuple[list[str], int]:
    """The lines of a written multiplication by one digit, and the product."""
    lines: list[str] = []
    done, carry, a = "", 0, left
    while a or carry or not lines:
        product = a % 10 * right
        total = product + carry
        done = f"{total % 10}{done}"
        step = f"{a % 10} x {right} = {product:02d}, {product:02d} + {carry} = {total:02d}"
        lines.append(f"{a} x {right} carry {carry}: {step}, so {done}")
        a, carry = a // 10, total // 10
    return lines, left * right


def fact(rng: random.Random) -> str:
    """One line of the tables that the steps above look up."""
    left, right, carry = rng.randrange(10), rng.randrange(10), rng.randrange(2)
    sign = rng.choices("+-x", (3, 3, 4))[0]
    if sign == "+":
        return f"{left} + {right} + {carry} = {left + right + carry:02d}"
    if sign == "-":
        rest = left - right - carry
        return f"{left} - {right} - {carry} = {rest % 10} borrow {int(rest < 0)}"
    factor = rng.randint(2, 9)
    product, carry = left * factor, rng.randrange(factor)
    return f"{left} x {factor} = {product:02d}, {product:02d} + {carry} = {product + carry:02d}"


_STEPS = {"+": add, "-": subtract, "x": multiply}
TASK = Task(name="arithmetic", make=make, check=check)


def _number(rng: Draws, max_digits: int) -> int:
    n_digits = max_digits + 1 if rng.wide else min(rng.choices(*_LENGTHS)[0], max_digits)
    return rng.randrange(10 ** (n_digits - 1) if n_digits > 1 else 0, 10**n_digits)


def _result(text: str) -> int | None:
    match = re.search(r"(?:^|[\s=])(-?[0-9]{1,12})$", text.strip())
    return int(match[1]) if match else None
