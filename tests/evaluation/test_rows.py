"""Rows of data files: what is missing or damaged is named, and some of them are drawn evenly."""

import gzip
import json
from pathlib import Path

import pytest

from trimode.errors import InvalidInput
from trimode.evaluation.rows import chosen, rows

pytestmark = pytest.mark.medium

FIELDS = {"name": str, "size": int}


def written(folder: Path, data: bytes, name: str = "set/rows.jsonl") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return folder


def test_rows_are_read_plain_and_compressed_and_empty_lines_left_out(tmp_path: Path) -> None:
    data = b'{"name": "\xc3\xa9", "size": 1}\n\n{"name": "b", "size": 2, "more": null}\n'
    written(tmp_path, data)
    written(tmp_path, gzip.compress(data), "set/rows.jsonl.gz")
    found = rows(tmp_path, "set/rows.jsonl", FIELDS)
    assert found == rows(tmp_path, "set/rows.jsonl.gz", FIELDS)
    assert [(row["name"], row["size"]) for row in found] == [("é", 1), ("b", 2)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[1]", "a JSON object is expected"),
        (b'{"size": 1}', "name is None, a str is expected"),
        (b'{"name": "b", "size": "2"}', "size is '2', a int is expected"),
        (b'{"name": "b", "size": true}', "size is True"),
    ],
)
def test_a_damaged_line_is_named_with_its_file_and_the_flag(tmp_path: Path, line: bytes, reason: str) -> None:
    written(tmp_path, b'{"name": "a", "size": 1}\n' + line + b"\n")
    with pytest.raises(InvalidInput, match=r"rows\.jsonl, line 2 \(--data-dir\)") as raised:
        rows(tmp_path, "set/rows.jsonl", FIELDS)
    assert reason in str(raised.value)


def test_a_file_that_is_missing_empty_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"set/rows\.jsonl is needed: --data-dir"):
        rows(None, "set/rows.jsonl", FIELDS)
    with pytest.raises(InvalidInput, match=r"rows\.jsonl is missing: --data-dir"):
        rows(tmp_path, "set/rows.jsonl", FIELDS)
    with pytest.raises(InvalidInput, match="holds no row"):
        rows(written(tmp_path, b"\n"), "set/rows.jsonl", FIELDS)
    whole = gzip.compress(json.dumps({"name": "a" * 999, "size": 1}).encode())
    for broken in (whole[:-9], b"not gzip", whole[:20] + b"\xff" * 9 + whole[29:]):
        with pytest.raises(InvalidInput, match=r"rows\.gz of --data-dir cannot be read"):
            rows(written(tmp_path, broken, "rows.gz"), "rows.gz", FIELDS)


def test_some_are_drawn_by_the_seed_evenly_from_all_groups_in_their_order() -> None:
    items = [f"{group}{index:02}" for group, n in (("a", 30), ("b", 3), ("c", 9)) for index in range(n)]
    assert chosen(items, None, 0) == chosen(items, 99, 1) == items
    drawn = chosen(items, 12, 0, lambda item: item[0])
    assert drawn == sorted(drawn) == chosen(items, 12, 0, lambda item: item[0]) != chosen(items, 12, 1)
    assert [sum(item[0] == group for item in drawn) for group in "abc"] == [5, 3, 4]
    assert set(chosen(items, 6, 0, lambda item: item[0])) < set(drawn)
