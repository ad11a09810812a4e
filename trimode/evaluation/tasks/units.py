"""Task `units`: a quantity in another unit; the rule and the written product stand on lines of their own before it."""

from trimode.evaluation.tasks.arithmetic import add, multiply
from trimode.evaluation.tasks.base import Draws, Example, Task, ask, same_last_line

_DECIMAL = (
    ("km", "m", 1000), ("m", "cm", 100), ("m", "mm", 1000), ("cm", "mm", 10), ("kg", "g", 1000), ("t", "kg", 1000),
    ("l", "ml", 1000), ("hl", "l", 100),
)  # fmt: skip
_OTHER = (
    ("h", "min", 60), ("min", "s", 60), ("days", "h", 24), ("weeks", "days", 7), ("years", "months", 12),
    ("dozen", "pieces", 12),
)  # fmt: skip
_INSTRUCTIONS = ("Convert to {}.", "Write this in {}.", "How many {} is this?")


def make(rng: Draws) -> Example:
    kind = rng.choice((_larger, _fraction, _smaller) if rng.wide else (_larger, _fraction, _smaller, _table, _sum))
    target, body, steps, result = kind(rng)
    return ask("units", rng.choice(_INSTRUCTIONS).format(target), body, f"{steps}\n{result} {target}")


TASK = Task(name="units", make=make, check=same_last_line)

Conversion = tuple[str, str, str, str]  # the unit asked for, the quantity, the steps, the number


def _larger(rng: Draws) -> Conversion:
    """A whole number of a large unit."""
    large, small, factor = rng.choice(_DECIMAL)
    n = _whole(rng)
    return small, f"{n} {large}", _rule(large, small, factor) + f"\n{n} x {factor} = {n * factor}", str(n * factor)


def _fraction(rng: Draws) -> Conversion:
    """A number with one decimal of a large unit."""
    large, small, factor = rng.choice(_DECIMAL)
    tenths = _whole(rng) * 10 + rng.randint(1, 9)
    n = f"{tenths // 10}.{tenths % 10}"
    result = str(tenths * factor // 10)
    return small, f"{n} {large}", _rule(large, small, factor) + f"\n{n} x {factor} = {result}", result


def _smaller(rng: Draws) -> Conversion:
    """So many of a small unit that they are a whole number of the large one."""
    large, small, factor = rng.choice(_DECIMAL)
    n = _whole(rng)
    body = f"{n * factor} {small}"
    return large, body, _rule(large, small, factor) + f"\n{n * factor} / {factor} = {n}", str(n)


def _table(rng: Draws) -> Conversion:
    """A unit whose factor is no power of ten; of those with two digits, a single digit of the unit."""
    large, small, factor = rng.choice(_OTHER)
    n = rng.randint(2, 9) if factor in (12, 24) else _whole(rng)
    steps = "\n".join([_rule(large, small, factor), *_product(n, factor)])
    return small, f"{n} {large}", steps, str(n * factor)


def _sum(rng: Draws) -> Conversion:
    """Hours and minutes, or minutes and seconds."""
    large, small, factor = rng.choice(_OTHER[:2])
    n, rest = rng.randint(1, 99), rng.randint(1, 59)
    steps = "\n".join([_rule(large, small, factor), *_product(n, factor), *add(n * factor, rest)[0]])
    return small, f"{n} {large} {rest} {small}", steps, str(n * factor + rest)


def _product(n: int, factor: int) -> list[str]:
    """The lines of n x factor: six times ten of them for 60, and the other way round for 12 and 24."""
    if factor == 60:
        return [*multiply(n, 6)[0], f"{6 * n} x 10 = {60 * n}"]
    return multiply(*((factor, n) if factor > 9 else (n, factor)))[0]


def _whole(rng: Draws) -> int:
    n_digits = rng.choice((4, 5)) if rng.wide else rng.randint(1, 3)
    return rng.randrange(10 ** (n_digits - 1), 10**n_digits)


def _rule(large: str, small: str, factor: int) -> str:
    return f"1 {large} = {factor} {small}"
