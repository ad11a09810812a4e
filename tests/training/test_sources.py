"""Every row of a file is found at its line, every broken one says what is wrong with it, and nobody phones home."""

import gzip
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from trimode.errors import InvalidInput
from trimode.training.sources import BadRow, BadRows, Unusable, find_files, read_rows, texts

LINES = [
    b'{"text": "one \xe2\x80\xa8 line"}',  # U+2028 is a line to some
    b"",
    b'{"text": "\xff"}',
    b'{"text": "two"',
    b'{"text": "a"}\x85',
    b"   ",
    b"[1, 2]",
    b"1" * 5000,
    b"[" * 100_000,
    b'{"text": "\xc3\xa9"}\r',
    b'{"text": "last, without an end of line"}',
]
EXPECTED = [
    (1, "one \u2028 line"), (3, "not UTF-8"), (4, "not JSON"), (5, "not UTF-8"), (7, "wrong type"), (8, "not JSON"),
    (9, "not JSON"), (10, "é"), (11, "last, without an end of line"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Attempts are counted, because the library swallows what goes wrong when it reports a download."""
    attempts: list[object] = []

    def refuse(*args: object, **options: object) -> None:
        attempts.append(args)
        raise OSError("no network here")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    yield
    assert attempts == []


def outcome(fields: Any) -> str:
    """The text of a row, or the reason why there is none."""
    try:
        return str(texts(fields)[1]["text"])
    except Unusable as why:
        return why.reason


def outcomes(file: Path) -> list[tuple[int, str]]:
    return [(row.line, outcome(row.fields)) for row in read_rows(file)]


@pytest.mark.medium
def test_a_broken_line_hurts_no_other_and_every_row_knows_its_line(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_bytes(b"\n".join(LINES))
    assert outcomes(tmp_path / "data.jsonl") == EXPECTED


def test_packed_lines_are_read_like_plain_ones(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl.gz").write_bytes(gzip.compress(b"\n".join(LINES)))
    assert outcomes(tmp_path / "data.jsonl.gz") == EXPECTED


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a"}\n')
    assert outcomes(tmp_path / "data.jsonl") == [(1, "a")]


@pytest.mark.medium
def test_lines_keep_their_numbers_beyond_the_reader_s_chunk_of_ten_megabytes(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"{i} " + "x" * 400_000}).encode() for i in range(30)]
    lines[27] = b"\xff" * 400_000
    (tmp_path / "data.jsonl").write_bytes(b"\n".join(lines))
    found = [(line, text.split()[0]) for line, text in outcomes(tmp_path / "data.jsonl")]
    assert found == [(i + 1, str(i) if i != 27 else "not") for i in range(30)]


def test_parquet_rows_are_counted_from_one_and_nulls_are_no_fields(tmp_path: Path) -> None:
    columns = {"text": ["a", None, "b"], "messages": [None, [{"role": "user", "content": "c"}], None]}
    parquet.write_table(pa.table(columns), tmp_path / "data.parquet")
    found = [(row.line, *texts(row.fields)) for row in read_rows(tmp_path / "data.parquet")]
    assert found == [
        (1, "text", {"text": "a"}),
        (2, "messages", {"messages": [{"role": "user", "content": "c"}]}),
        (3, "text", {"text": "b"}),
    ]


def test_a_parquet_text_that_is_not_utf8_hurts_no_other(tmp_path: Path) -> None:
    damaged = pa.Array.from_buffers(pa.string(), 3, pa.array([b"ok", b"a\xff", b"too"]).buffers())
    parquet.write_table(pa.table({"text": damaged}), tmp_path / "data.parquet")
    assert outcomes(tmp_path / "data.parquet") == [(1, "ok"), (2, "not UTF-8"), (3, "too")]


@pytest.mark.parametrize("name", ["empty.jsonl", "empty.jsonl.gz"])
def test_an_empty_file_has_no_rows(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"") if name.endswith("gz") else b"")
    assert outcomes(tmp_path / name) == []


@pytest.mark.parametrize("name", ["we[1]rd*.jsonl", "with space.jsonl", "with#hash.jsonl", "ä.jsonl"])
def test_a_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"text": "a"}\n')
    (file,) = find_files([str(tmp_path / name)])
    assert outcomes(file) == [(1, "a")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut.jsonl.gz", lambda: gzip.compress(b'{"text": "a"}\n' * 1000)[:-20]),
        ("no.jsonl.gz", lambda: b"plain"),
        ("no.parquet", lambda: b"plain"),
        ("empty.parquet", lambda: b""),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: Callable[[], bytes]) -> None:
    (tmp_path / name).write_bytes(content())
    with pytest.raises(InvalidInput, match=f"{name}: this file cannot be read"):
        list(read_rows(tmp_path / name))


def test_globs_reach_into_folders_and_every_file_counts_once(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    names = ["b.jsonl", "a.parquet", "sub/c.jsonl.gz", "notes.txt"]
    for name in names:
        (tmp_path / name).touch()
    found = find_files([str(tmp_path / "**/*.jsonl*"), str(tmp_path / "*.parquet"), str(tmp_path / "b.jsonl")])
    assert found == tuple(tmp_path / name for name in sorted(names[:3]))
    with pytest.raises(InvalidInput, match="no file matches"):
        find_files([str(tmp_path / "*.json")])
    with pytest.raises(InvalidInput, match=r"notes.txt: allowed are files that end in .jsonl, .jsonl.gz, .parquet"):
        find_files([str(tmp_path / "notes.txt")])


@pytest.mark.parametrize(
    ("fields", "reason", "detail"),
    [
        ({}, "missing field", "given is nothing"),
        ({"txt": "a"}, "missing field", "text, given is txt"),
        ({"text": None}, "missing field", "given is nothing"),
        ({"prefix": "a", "suffix": "b"}, "missing field", "prefix+middle+suffix"),
        ({"text": 5}, "wrong type", "text is a number, not a text"),
        ({"text": True}, "wrong type", "text is true or false"),
        ({"prompt": "a", "completion": ["b"]}, "wrong type", "completion is a list"),
        ({"prefix": "a", "middle": {}, "suffix": "b"}, "wrong type", "middle is an object"),
        ("a", "wrong type", "a row is an object, not a text"),
        (None, "wrong type", "not null"),
    ],
)
def test_a_row_without_a_shape_says_what_is_wrong(fields: Any, reason: str, detail: str) -> None:
    with pytest.raises(Unusable) as why:
        texts(fields)
    assert why.value.reason == reason
    assert detail in why.value.detail


def test_bad_rows_are_counted_by_reason_and_the_first_ten_are_shown() -> None:
    bad = BadRows()
    assert str(bad) == ""
    for i in range(12):
        bad.add(BadRow(place=f"f.jsonl:{i}", reason="empty" if i % 3 else "not JSON", detail="why"))
    lines = str(bad).splitlines()
    assert lines[:2] == ["12 rows left out: 8 empty, 4 not JSON", "  f.jsonl:0: not JSON (why)"]
    assert lines[-1] == "  and 2 more"
    assert len(lines) == 12


def test_strict_makes_the_first_bad_row_an_error() -> None:
    with pytest.raises(InvalidInput, match=r"^f.jsonl:3: empty \(why\); without strict"):
        BadRows(strict=True).add(BadRow(place="f.jsonl:3", reason="empty", detail="why"))


def test_without_the_library_the_way_to_install_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data.jsonl").write_text('{"text": "a"}\n')
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(InvalidInput, match=r"pip install 'trimode\[train\]'"):
        list(read_rows(tmp_path / "data.jsonl"))
