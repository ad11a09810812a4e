"""Task `sql`: a table and a request become one SELECT. Judged by what it finds in a small SQLite table."""

import random
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from trimode.evaluation.tasks import values, words
from trimode.evaluation.tasks.base import Draws, Example, Task, ask

_INSTRUCTIONS = ("Write an SQL query.", "Translate the request to SQL:", "Which SQL query answers this?")
_TABLES = words.listed(
    """
    accounts bookings cars courses customers devices events flights guests hotels invoices items members messages
    orders patients payments players products projects reports rooms sensors students suppliers tasks teams tickets
    tools visits
    """
)
_TYPES = {"int": "int", "float": "float", "bool": "bool"}  # every other kind is text
_RESERVED = frozenset({"index", "limit", "order", "group", "key", "table", "like", "case", "select", "where"})
_COMPARED = {"greater than": ">", "less than": "<", "at least": ">=", "at most": "<="}
_FUNCTIONS = {"average": "AVG", "sum": "SUM", "largest": "MAX", "smallest": "MIN"}
_SIZES = (400, *[1] * 60)  # rows of the tables it is judged on: in one row the bound of a MAX shows
# Of one query. Steps do not count what happens within a function, so what a function may be given is bounded too.
_MAX_STEPS = 200_000
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 4_000, sqlite3.SQLITE_LIMIT_SQL_LENGTH: 20_000,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 100, sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 100,
}  # fmt: skip
_CALLED = frozenset(
    {"abs", "avg", "coalesce", "count", "length", "like", "lower", "max", "min", "round", "sum", "total", "upper"}
)

Columns = dict[str, str]  # name -> type


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of a request, in words and in SQL."""

    says: str
    sql: str


def make(rng: Draws) -> Example:
    while True:
        table, kinds = rng.choice(_TABLES), _columns(rng)
        columns = {name: _TYPES.get(kind, "text") for name, kind in kinds.items()}
        request, query = _request(rng, table, columns, kinds)
        spec = ", ".join(f"{name} {kind}" for name, kind in columns.items())
        drawn = ask("sql", rng.choice(_INSTRUCTIONS), f"table: {table}({spec})\nrequest: {request}", query)
        if _found(drawn.prompt, query, query, sizes=(1,)) is not None:  # no invented name was a keyword
            return drawn


def check(example: Example, text: str) -> bool:
    """Whether the query gives the rows of the right one, on a table whose values lie around the query's constants."""
    good = _found(example.prompt, example.answer, example.answer)
    return good is not None and _found(example.prompt, example.answer, text) == good


TASK = Task(name="sql", make=make, check=check)


def _columns(rng: Draws) -> Columns:
    """Names and kinds of columns, one of them at least a number."""
    n = rng.choice((6, 7)) if rng.wide else rng.choice((2, 3, 3, 4, 5))
    while True:
        found = dict(values.typed_fields(rng, n))
        if not _RESERVED & set(found) and {"int", "float"} & set(found.values()):
            return found


def _request(rng: Draws, table: str, columns: Columns, kinds: Columns) -> tuple[str, str]:
    """The request in words, and the query."""
    n_conditions = rng.choice((2, 3)) if rng.wide else rng.choice((0, 1, 1, 2))
    chosen = rng.sample(list(columns), min(n_conditions, len(columns)))
    conditions = [_condition(rng, name, kinds[name]) for name in chosen]
    says = f" where {' and '.join(part.says for part in conditions)}" if conditions else ""
    where = f"\nWHERE {' AND '.join(part.sql for part in conditions)}" if conditions else ""
    what = rng.choices((_listing, _count, _total), (5, 1, 2))[0](rng, table, columns)
    tail = _order(rng, columns) if what.sql.count("(") == 0 else Part(says="", sql="")
    return f"{what.says}{says}{tail.says}", f"{what.sql}\nFROM {table}{where}{tail.sql};"


def _listing(rng: Draws, table: str, columns: Columns) -> Part:
    if rng.random() < 0.25:
        return Part(says=f"show all {table}", sql="SELECT *")
    names = rng.sample(list(columns), rng.randint(1, min(3, len(columns))))
    return Part(says=f"show {' and '.join(names)} of {table}", sql=f"SELECT {', '.join(names)}")


def _count(rng: Draws, table: str, columns: Columns) -> Part:
    return Part(says=f"count the {table}", sql="SELECT COUNT(*)")


def _total(rng: Draws, table: str, columns: Columns) -> Part:
    name, word = _number_column(rng, columns), rng.choice(list(_FUNCTIONS))
    return Part(says=f"show the {word} {name} of {table}", sql=f"SELECT {_FUNCTIONS[word]}({name})")


def _condition(rng: Draws, name: str, kind: str) -> Part:
    if kind == "bool":
        truth = rng.choice(("true", "false"))
        return Part(says=f"{name} is {truth}", sql=f"{name} = {truth}")
    value = values.spelled(values.typed_value(rng, kind))
    if kind in ("int", "float"):
        word = rng.choice(list(_COMPARED))
        return Part(says=f"{name} is {word} {value}", sql=f"{name} {_COMPARED[word]} {value}")
    return Part(says=f"{name} is '{value}'", sql=f"{name} = '{value}'")


def _order(rng: Draws, columns: Columns) -> Part:
    if rng.random() < 0.5:
        return Part(says="", sql="")
    name, is_down, limit = _number_column(rng, columns), rng.random() < 0.5, rng.randint(1, 20)
    says, sql = (
        f", ordered by {name}{' descending' if is_down else ''}",
        f"\nORDER BY {name}{' DESC' if is_down else ''}",
    )
    if rng.random() < 0.5:
        return Part(says=f"{says}, at most {limit} rows", sql=f"{sql}\nLIMIT {limit}")
    return Part(says=says, sql=sql)


def _number_column(rng: Draws, columns: Columns) -> str:
    return rng.choice([name for name, kind in columns.items() if kind in ("int", "float")])


def _found(
    prompt: str, good: str, query: str, sizes: tuple[int, ...] = _SIZES
) -> list[list[tuple[object, ...]]] | None:
    """What a query finds in tables as the prompt describes, in order; None where it is no single SELECT that runs."""
    table, _, rest = prompt.partition("\ntable: ")[2].partition("(")
    columns = dict(column.split(" ") for column in rest.partition(")")[0].split(", "))
    database = sqlite3.connect(":memory:")
    database.set_progress_handler(lambda: 1, _MAX_STEPS)
    for limit, most in _LIMITS.items():
        database.setlimit(limit, most)
    try:
        database.execute(f"CREATE TABLE {table} ({', '.join(f'{name} {kind}' for name, kind in columns.items())})")
        rows = _rows(columns, good)
        return [_asked(database, table, [rows() for _ in range(size)], query) for size in sizes]
    except (sqlite3.Error, sqlite3.Warning, UnicodeEncodeError, ValueError, MemoryError):
        return None
    finally:
        database.close()


def _asked(
    database: sqlite3.Connection, table: str, rows: list[tuple[object, ...]], query: str
) -> list[tuple[object, ...]]:
    """What the query finds where the table holds these rows."""
    database.set_authorizer(None)
    database.execute(f"DELETE FROM {table}")
    database.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)
    database.set_authorizer(_only_reading)
    return database.execute(query).fetchall()


def _rows(columns: Columns, good: str) -> Callable[[], tuple[object, ...]]:
    """A source of rows, the same each time: their values are the right query's constants, neighbours, and others."""
    rng = random.Random(good)
    numbers = [float(word) for word in good.replace(";", " ").split() if word.replace(".", "").isdigit()] or [10.0]
    texts = good.split("'")[1::2] or ["x"]
    makers: dict[str, Callable[[], object]] = {
        "int": lambda: int(rng.choice(numbers)) + rng.choice((-1, 0, 0, 1, rng.randint(-99, 99))),
        "float": lambda: rng.choice(numbers) + rng.choice((-0.1, -0.01, 0.0, 0.0, 0.01, 0.1, rng.uniform(-99, 99))),
        "bool": lambda: rng.random() < 0.6,
        "text": lambda: rng.choice([*texts, *texts, "other"]),
    }
    return lambda: tuple(makers[kind]() for kind in columns.values())


def _only_reading(action: int, _: str | None, name: str | None, *__: object) -> int:
    if action == sqlite3.SQLITE_FUNCTION:
        return sqlite3.SQLITE_OK if str(name).lower() in _CALLED else sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ) else sqlite3.SQLITE_DENY
