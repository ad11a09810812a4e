"""Tokens on disk are the rows' documents, made once; what is half-written is never taken for whole."""

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.fakes import EOS, byte_tokenizer
from trimode.errors import InvalidInput
from trimode.tokenizer import Tokenizer
from trimode.training import token_cache
from trimode.training.encoding import Encoder
from trimode.training.token_cache import TokenCache, tokenized

ENCODER = Encoder(byte_tokenizer(), EOS)
ROWS = [
    {"text": "A text."},
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}] * 2},
    {"prefix": "a", "middle": "bc", "suffix": "d"},
    {"prompt": "1+1=", "completion": "2"},
]
BAD = ['{"text": ""}', "no JSON", '{"messages": [{"role": "user", "content": "?"}]}']


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with two files: good and bad rows as lines, two texts as Parquet."""
    folder = tmp_path / "data"
    folder.mkdir()
    lines = [json.dumps(ROWS[0]), BAD[0], *map(json.dumps, ROWS[1:]), *BAD[1:]]
    (folder / "a.jsonl").write_text("\n".join(lines))
    parquet.write_table(pa.table({"text": ["x", None, "yz"]}), folder / "b.parquet")
    return folder


def made(data: Path, encoder: Encoder = ENCODER, **options: bool) -> TokenCache:
    return tokenized([str(data / "*")], encoder, data.parent / "cache", **options)


def refuse_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: Path) -> None:
        raise AssertionError(f"{file} is read again")

    monkeypatch.setattr(token_cache, "read_rows", refuse)


def complete(folder: Path) -> list[Path]:
    """Folders that a later run would take for complete caches."""
    return [path.parent for path in folder.glob("*/meta.json") if path.parent.suffix == ""]


def test_the_cache_holds_the_documents_of_the_rows_in_order(data: Path) -> None:
    cache = made(data)
    expected = [ENCODER.document(row) for row in [*ROWS, {"text": "x"}, {"text": "yz"}]]
    assert [cache.document(i) for i in range(len(cache))] == expected
    assert cache.sizes().tolist() == [[len(d.tokens), d.n_targets, len(d.answers)] for d in expected]
    assert cache.cuttable().tolist() == [True, False, False, False, True, True]
    lines = [cache.place(i).removeprefix(f"{data}/") for i in range(len(cache))]
    assert lines == ["a.jsonl:1", "a.jsonl:3", "a.jsonl:4", "a.jsonl:5", "b.parquet:1", "b.parquet:3"]


def test_bad_rows_are_counted_by_reason_with_file_and_line_also_when_reopened(data: Path) -> None:
    made(data)
    bad = made(data).bad_rows
    assert bad.counts == {"empty": 1, "not JSON": 1, "no answer": 1, "missing field": 1}
    found = [(row.place.removeprefix(f"{data}/"), row.reason) for row in bad.first]
    assert found == [("a.jsonl:2", "empty"), ("a.jsonl:6", "not JSON"), ("a.jsonl:7", "no answer"),
                     ("b.parquet:2", "missing field")]  # fmt: skip


@pytest.mark.parametrize("is_made", [False, True])
def test_strict_makes_the_first_bad_row_an_error_and_keeps_no_cache(data: Path, is_made: bool) -> None:
    if is_made:
        made(data)
    with pytest.raises(InvalidInput, match=r"a\.jsonl:2: empty \(text has no tokens\)"):
        made(data, strict=True)
    assert len(complete(data.parent / "cache")) == is_made


def test_the_second_run_reads_no_row(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = made(data)
    refuse_to_read(monkeypatch)
    second = made(data)
    assert second.fingerprint == first.fingerprint
    assert [second.document(i) for i in range(len(second))] == [first.document(i) for i in range(len(first))]


def test_files_may_move_and_keep_their_tokens(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = made(data)
    refuse_to_read(monkeypatch)
    moved = data.rename(data.with_name("elsewhere"))
    second = made(moved)
    assert second.fingerprint == first.fingerprint
    assert second.place(1) == f"{moved}/a.jsonl:3"
    assert second.bad_rows.first[0].place == f"{moved}/a.jsonl:2"


def test_other_text_another_template_or_another_end_is_another_cache(data: Path) -> None:
    tokenizer = byte_tokenizer()
    template = f"<|bos|>{tokenizer.chat_template}"
    encoders = [ENCODER, Encoder(tokenizer, 1), Encoder(Tokenizer(tokenizer.backend, template), EOS)]
    found = {made(data, encoder).fingerprint for encoder in encoders}
    with (data / "a.jsonl").open("a") as file:
        file.write('\n{"text": "more"}')
    found.add(made(data).fingerprint)
    assert len(found) == 4
    assert len(complete(data.parent / "cache")) == 4


def test_large_vocabularies_take_wider_numbers(data: Path) -> None:
    wide = Encoder(byte_tokenizer(), 70_000)
    assert made(data, wide).document(0).tokens[-1] == 70_000


def test_data_without_a_single_document_is_refused_with_the_reasons(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text("\n".join(BAD))
    for _ in range(2):
        with pytest.raises(InvalidInput, match=r"no row can be trained on\n3 rows left out: 1 empty, 1 no answer, 1 n"):
            tokenized([str(tmp_path / "*.jsonl")], ENCODER, tmp_path / "cache")


@pytest.mark.parametrize("name", ["tokens.bin", "answers.bin", "documents.bin", "meta.json"])
def test_a_cache_that_was_cut_short_is_noticed(data: Path, name: str) -> None:
    file = made(data).folder / name
    os.truncate(file, file.stat().st_size - 1)
    with pytest.raises(InvalidInput, match=f"{name}: this file is not as it was written"):
        made(data)


def test_a_cache_without_its_meta_is_made_anew(data: Path) -> None:
    cache = made(data)
    (cache.folder / "meta.json").unlink()
    assert made(data).fingerprint == cache.fingerprint


def test_a_folder_that_cannot_be_made_is_one_sentence(data: Path) -> None:
    (data.parent / "cache").write_text("a file")
    with pytest.raises(Exception, match="cache: the tokens cannot be written there: File exists"):
        made(data)


def test_the_watcher_is_told_how_many_rows_were_read(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text('{"text": "a"}\n' * 2500)
    seen: list[int] = []
    tokenized([str(tmp_path / "data.jsonl")], ENCODER, tmp_path / "cache", watch=seen.append)
    assert seen == [1000, 2000]


def test_whoever_wants_the_same_cache_at_the_same_time_waits_for_it(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text('{"text": "some words"}\n' * 1000)
    seen: list[int] = []

    def make(_: int) -> TokenCache:
        return tokenized([str(tmp_path / "data.jsonl")], ENCODER, tmp_path / "cache", watch=seen.append)

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(make, range(3)))
    assert seen == [1000]  # one of them has read the rows
    assert [len(cache) for cache in found] == [1000] * 3


# In processes of their own.


def run(program: str, folder: Path, **options: object) -> subprocess.CompletedProcess[str]:
    """`program` with `make(watch=None)`, which tokenizes 3000 rows into folder/cache."""
    (folder / "data.jsonl").write_text('{"text": "some words"}\n' * 3000)
    ENCODER.tokenizer.backend.save(str(folder / "tokenizer.json"))
    head = f"""
        import os, signal
        from functools import partial
        from pathlib import Path
        from trimode.errors import TrimodeError
        from trimode.tokenizer import Tokenizer
        from trimode.training.encoding import Encoder
        from trimode.training.token_cache import tokenized
        encoder = Encoder(Tokenizer.load(Path({str(folder)!r})), {EOS})
        make = partial(tokenized, [{str(folder / "data.jsonl")!r}], encoder, Path({str(folder / "cache")!r}))
    """
    command = [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(program)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, **options)  # type: ignore


@pytest.mark.medium
def test_a_run_that_is_killed_while_it_writes_leaves_nothing_that_is_taken_for_complete(tmp_path: Path) -> None:
    killed = run("make(watch=lambda n: os.kill(os.getpid(), signal.SIGKILL) if n == 2000 else None)", tmp_path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    folder = tmp_path / "cache"
    assert list(folder.glob("*.part/tokens.bin"))  # it was in the middle of it
    assert complete(folder) == []
    encoder = Encoder(Tokenizer(ENCODER.tokenizer.backend), EOS)
    cache = tokenized([str(tmp_path / "data.jsonl")], encoder, folder)
    assert len(cache) == 3000
    assert complete(folder) == [cache.folder]
    assert not list(folder.glob("*.part"))


@pytest.mark.medium
@pytest.mark.parametrize("limit", [100, 10_000])  # met while writing the folder's list of files, and the tokens
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path, limit: int) -> None:
    program = """
        try:
            make()
        except TrimodeError as error:
            print(error)
    """
    limits = (limit, limit)
    full = run(program, tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits))
    folder = tmp_path / "cache"
    assert full.stdout == f"{folder}: the tokens cannot be written there: the disk or a quota is full\n", full.stderr
    assert full.stderr == ""
    assert complete(folder) == []
    assert not [path for path in folder.iterdir() if path.suffix not in (".lock", ".json")]
