"""Task `dates`: a date written another way, or a later date, after a written sum as in `arithmetic`."""

import calendar
import datetime
from collections.abc import Callable

from trimode.evaluation.tasks.arithmetic import add, subtract
from trimode.evaluation.tasks.base import Draws, Example, Task, ask, same_last_line

_MONTHS = tuple(calendar.month_name)
_YEARS, _WIDE_YEARS = range(1980, 2031), range(2031, 2061)

Question = tuple[str, str, str]  # instruction, input, answer


def make(rng: Draws) -> Example:
    instruction, body, answer = rng.choice(_QUESTIONS)(rng, _date(rng))
    return ask("dates", instruction, body, answer)


TASK = Task(name="dates", make=make, check=same_last_line)


def _date(rng: Draws) -> datetime.date:
    """Not in February of a leap year, so that a month has one length, and on a day that every month has."""
    date = datetime.date(rng.choice(_WIDE_YEARS if rng.wide else _YEARS), rng.randint(1, 12), rng.randint(1, 28))
    return date if date.month != 2 or not calendar.isleap(date.year) else _date(rng)


def _to_words(rng: Draws, date: datetime.date) -> Question:
    return "Write the date with the name of the month.", date.isoformat(), _worded(date)


def _to_iso(rng: Draws, date: datetime.date) -> Question:
    return "Write the date as year-month-day.", _worded(date), date.isoformat()


def _to_slashes(rng: Draws, date: datetime.date) -> Question:
    return "Write the date as day/month/year.", date.isoformat(), f"{date:%d/%m/%Y}"


def _from_slashes(rng: Draws, date: datetime.date) -> Question:
    return "Write the date as year-month-day.", f"{date:%d/%m/%Y}", date.isoformat()


def _days_later(rng: Draws, date: datetime.date) -> Question:
    n = rng.randint(1, 28)
    day, length = date.day + n, calendar.monthrange(date.year, date.month)[1]
    steps = add(date.day, n)[0]
    if day > length:
        steps += [f"{_MONTHS[date.month]} has {length} days", *subtract(day, length)[0]]
    return f"Which date is {n} days later?", date.isoformat(), _worked(steps, date + datetime.timedelta(days=n))


def _months_later(rng: Draws, date: datetime.date) -> Question:
    n = rng.randint(1, 11)
    month = date.month + n
    steps = add(date.month, n)[0] + (subtract(month, 12)[0] if month > 12 else [])
    later = date.replace(year=date.year + (month > 12), month=(month - 1) % 12 + 1)
    return f"Which date is {n} months later?", date.isoformat(), _worked(steps, later)


def _years_later(rng: Draws, date: datetime.date) -> Question:
    n = rng.randint(1, 20)
    later = date.replace(year=date.year + n)
    return f"Which date is {n} years later?", date.isoformat(), _worked(add(date.year, n)[0], later)


_QUESTIONS: tuple[Callable[[Draws, datetime.date], Question], ...] = (
    _to_words, _to_iso, _to_slashes, _from_slashes, _days_later, _months_later, _years_later,
)  # fmt: skip


def _worded(date: datetime.date) -> str:
    return f"{date.day} {_MONTHS[date.month]} {date.year}"


def _worked(steps: list[str], date: datetime.date) -> str:
    return "\n".join([*steps, date.isoformat()])
