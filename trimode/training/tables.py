"""TOML's tables -> frozen dataclasses. Knows fields and their types; not what they mean."""

import difflib
import tomllib
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, NewType, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from trimode.errors import InvalidInput

T = TypeVar("T")
Pattern = NewType("Pattern", str)  # a glob pattern of files, relative to the recipe; or MADE and a name
MADE = "make:"


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` where it says something, `below` elsewhere; tables are merged field by field."""
    out = dict(below)
    for name, value in above.items():
        is_table = isinstance(value, dict) and isinstance(out.get(name), dict)
        out[name] = merged(out[name], value) if is_table else value
    return out


def refuse_unknown(names: Iterable[str], known: Sequence[str], where: str) -> None:
    """Refuse a name that means nothing here, with the nearest that does."""
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise InvalidInput(f"{where} has an unknown key {name!r}: {hint}")


def build(cls: type[T], table: Mapping[str, Any], where: str, folder: Path, **given: Any) -> T:
    """An instance of a dataclass, or a sentence about a field that is unknown, missing or of another type.

    `given` are values for fields that the table does not name.
    """
    known = {item.name: item for item in fields(cast(Any, cls)) if item.name not in given}
    refuse_unknown(table, tuple(known), where)
    hints, values = get_type_hints(cls), dict(given)
    for name, item in known.items():
        if name in table:
            values[name] = _value(hints[name], table[name], f"{where}: {name}", folder, item)
        elif item.default is MISSING and item.default_factory is MISSING:
            raise InvalidInput(f"{where} lacks {name!r}")
    try:
        return cls(**values)
    except ValueError as error:
        raise InvalidInput(f"{where}: {error}") from None


def _value(hint: Any, value: Any, where: str, folder: Path, item: Field[Any] | None = None) -> Any:
    """A TOML value as the field's type has it."""
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(kind for kind in get_args(hint) if kind is not type(None))
    if is_dataclass(hint):
        return _nested(cast(type[Any], hint), value, where, folder, item)
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise InvalidInput(f"{where} is {value!r}, a list is expected")
        return tuple(_value(get_args(hint)[0], entry, where, folder) for entry in value)
    if get_origin(hint) is Mapping:
        if not isinstance(value, dict):
            raise InvalidInput(f"{where} is {value!r}, a table is expected")
        return {key: _value(get_args(hint)[1], entry, f"{where}.{key}", folder) for key, entry in value.items()}
    return _plain(hint, value, where, folder)


def _plain(hint: Any, value: Any, where: str, folder: Path) -> Any:
    """A number, a flag or a text; an integer will do for a float, a flag is no number."""
    wanted: Any = str if hint in (Path, Pattern) else hint
    is_of_type = isinstance(value, (int, float) if wanted is float else wanted)
    if not is_of_type or (isinstance(value, bool) and wanted is not bool):
        raise InvalidInput(f"{where} is {value!r}, of the type {wanted.__name__} is expected")
    if hint is Pattern and str(value).startswith(MADE):
        return value
    if hint in (Path, Pattern):
        path = folder / str(value)
        return path if hint is Path else str(path)
    return value


def _nested(cls: type[Any], value: Any, where: str, folder: Path, item: Field[Any] | None) -> Any:
    """A table within a table: what it does not say stays as the field's default has it."""
    if not isinstance(value, dict):
        raise InvalidInput(f"{where} is {value!r}, a table is expected")
    if item is None or item.default_factory is MISSING:
        return build(cls, value, where, folder)
    base = item.default_factory()
    kept = {f.name: getattr(base, f.name) for f in fields(base) if f.name not in value}
    return build(cls, value, where, folder, **kept)


def change(table: dict[str, Any], text: str, top: Sequence[str]) -> None:
    """Put one `path=value` into a recipe's tables; mutates them.

    A path that starts with one of `top` is the recipe's, stage.NAME.key one stage's, make.NAME.key one of the tables'
    of data to be made, any other every stage's.
    """
    path, sign, spelled = text.partition("=")
    first, *others = path.strip().split(".")
    if not sign or not first or (first in ("stage", "make") and len(others) < 2):
        raise InvalidInput(f"--set {text}: write it as name=value or stage.NAME.name=value")
    try:
        value = tomllib.loads(f"value = {spelled}")["value"]
    except tomllib.TOMLDecodeError:
        value = spelled  # a bare word is a text
    stages: list[Any] = table.get("stage", [])
    targets, keys = ([table] if first in top else stages), [first, *others]
    if first in ("stage", "make"):
        named = stages if first == "stage" else made_tables(table)
        targets, keys = [item for item in named if item.get("name") == others[0]], others[1:]
    if not targets:
        raise InvalidInput(f"--set {text}: the recipe has no such {'make' if first == 'make' else 'stage'}")
    for target in targets:
        _put(target, keys, value, f"--set {text}")


def made_tables(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The [[data.make]] tables of a recipe's."""
    data = table.get("data", {})
    found = data.get("make", []) if isinstance(data, dict) else []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise InvalidInput("data to be made is written as [[data.make]]")
    return found


def _put(table: dict[str, Any], keys: Sequence[str], value: Any, where: str) -> None:
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise InvalidInput(f"{where}: {key} is {table!r}, which has no parts")
    table[keys[-1]] = value
