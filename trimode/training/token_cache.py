"""Files of rows -> tokens on disk, made once and read by index ever after. Knows no noise and no model.

A cache is a folder, named by what decides its content: the hashes of the files in their order, the tokenizer's, and the
version of this format.

    tokens.bin      every document's tokens, one after the other: uint16, or uint32 for more ids than that holds
    answers.bin     int64 [n_answers, 2]: ranges of targets, counted from their document's first token
    documents.bin   int64 [n, 6]: where its tokens and its answers stop, file, line, whether it has a hole, may be cut
    meta.json       counts, the largest id, bad rows, and the fingerprint: the sha256 of tokens, answers and documents

It is written into a folder of another name, under a lock that the system takes back from a process that dies, and
renamed when everything is on the disk: what has the right name is complete. Processes that want the same cache wait for
the first and read what it has made.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from trimode.errors import InvalidInput, StorageError
from trimode.training.contents import hashes
from trimode.training.corpora import Flags, Integers
from trimode.training.documents import Document
from trimode.training.encoding import Encoder
from trimode.training.sources import BadRow, BadRows, Unusable, find_files, read_rows
from trimode.training.token_writer import ANSWERS_STOP, COLUMNS, CUTTABLE, FILE, FORMAT, HOLE, LINE, STOP, Writer

DAMAGED = "{}: this file is not as it was written; delete the folder and it is made anew"
EVERY = 1000  # rows between two calls of `watch`


class TokenCache:
    """A complete cache as a corpus. `files` are where its rows come from, in the order of their numbers."""

    def __init__(self, folder: Path, files: Sequence[Path]) -> None:
        meta = _meta(folder / "meta.json")
        self.folder, self.files = folder, tuple(files)
        self.fingerprint: str = meta["fingerprint"]
        self.n_tokens: int = meta["n_tokens"]
        self.largest: int = meta["largest"]  # id of all
        self.bad_rows = _bad_rows(meta["bad_rows"], files)
        self._tokens = self._mapped("tokens.bin", np.dtype(meta["dtype"]), (self.n_tokens,))
        self._answers = self._mapped("answers.bin", np.dtype(np.int64), (meta["n_answers"], 2))
        self._documents = self._mapped("documents.bin", np.dtype(np.int64), (meta["n_documents"], COLUMNS))

    def __len__(self) -> int:
        return len(self._documents)

    def document(self, index: int) -> Document:
        first, last = self._range(index, STOP)
        tokens = tuple(self._tokens[first:last].tolist())
        first, last = self._range(index, ANSWERS_STOP)
        answers = tuple((start, stop) for start, stop in self._answers[first:last].tolist())
        return Document(tokens=tokens, answers=answers, hole=answers[0] if self._documents[index, HOLE] else None)

    def sizes(self) -> Integers:
        n_tokens, n_answers = (np.diff(self._documents[:, column], prepend=0) for column in (STOP, ANSWERS_STOP))
        targets = np.concatenate([[0], np.cumsum(self._answers[:, 1] - self._answers[:, 0])])
        n_targets = np.diff(targets[self._documents[:, ANSWERS_STOP]], prepend=0)
        return np.stack([n_tokens, n_targets, n_answers], 1)

    def cuttable(self) -> Flags:
        return np.asarray(self._documents[:, CUTTABLE] > 0)

    def place(self, index: int) -> str:
        return f"{self.files[self._documents[index, FILE]]}:{self._documents[index, LINE]}"

    def _range(self, index: int, column: int) -> tuple[int, int]:
        first = self._documents[index - 1, column] if index else 0
        return int(first), int(self._documents[index, column])

    def _mapped(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
        path = self.folder / name
        if not path.exists() or path.stat().st_size != dtype.itemsize * int(np.prod(shape)):
            raise InvalidInput(DAMAGED.format(path))
        if not all(shape):
            return np.zeros(shape, dtype)  # an empty file cannot be mapped
        return np.memmap(path, dtype, "r", shape=shape)


def tokenized(
    patterns: Sequence[str],
    encoder: Encoder,
    folder: Path | None = None,
    *,
    strict: bool = False,
    watch: Callable[[int], None] | None = None,
) -> TokenCache:
    """The documents of all files the globs name, from the cache in `folder` (default: the user's) or newly made.

    `watch` is told every now and then how many rows have been read. Bad rows are left out and stand in `bad_rows`; with
    `strict` the first is an InvalidInput. So is data without any document; a full disk is a StorageError.
    """
    files = find_files(patterns)
    folder = folder or default_folder()
    with _disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        key = _key(files, encoder, folder)
        final = folder / key
        with _locked(folder / f"{key}.lock"):
            if not (final / "meta.json").exists():
                _write(files, encoder, final, strict, watch)
    cache = TokenCache(final, files)
    if strict and cache.bad_rows.first:
        BadRows(strict=True).add(cache.bad_rows.first[0])
    if not len(cache):
        raise InvalidInput(f"{', '.join(patterns)}: no row can be trained on\n{cache.bad_rows}".rstrip())
    return cache


def default_folder() -> Path:
    """$XDG_CACHE_HOME/trimode/tokens, or ~/.cache/trimode/tokens."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trimode" / "tokens"


def _meta(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InvalidInput(DAMAGED.format(path)) from error


def _bad_rows(stored: dict[str, Any], files: Sequence[Path]) -> BadRows:
    first = [BadRow(**row | {"place": _named(row["place"], files)}) for row in stored["first"]]
    return BadRows(counts=Counter(stored["counts"]), first=first)


def _numbered(place: str, files: Sequence[Path]) -> str:
    """A place with the file's number for its name: files may move, and their tokens stay."""
    name, _, line = place.rpartition(":")
    return f"{files.index(Path(name))}:{line}"


def _named(place: str, files: Sequence[Path]) -> str:
    number, _, line = place.partition(":")
    return f"{files[int(number)]}:{line}"


def _key(files: Sequence[Path], encoder: Encoder, folder: Path) -> str:
    decisive = [FORMAT, encoder.digest, *hashes(files, folder)]
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the others wait."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """What the disk refuses, in one sentence."""
    try:
        yield
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        why = "the disk or a quota is full" if is_full else error.strerror
        raise StorageError(f"{folder}: the tokens cannot be written there: {why}") from error


def _write(
    files: Sequence[Path], encoder: Encoder, final: Path, strict: bool, watch: Callable[[int], None] | None
) -> None:
    part = final.with_suffix(".part")
    for left in (part, final):  # by a run that was killed, or a hand that took out meta.json: the lock is ours
        shutil.rmtree(left, ignore_errors=True)
    part.mkdir()
    try:
        with Writer(part, encoder.n_ids) as writer:
            bad = _encode_all(files, encoder, writer, strict, watch)
        first = [asdict(row) | {"place": _numbered(row.place, files)} for row in bad.first]
        with (part / "meta.json").open("w", encoding="utf-8") as file:
            json.dump(writer.meta | {"bad_rows": {"counts": bad.counts, "first": first}}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        part.rename(final)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _encode_all(
    files: Sequence[Path], encoder: Encoder, writer: "Writer", strict: bool, watch: Callable[[int], None] | None
) -> BadRows:
    bad, n = BadRows(strict=strict), 0
    for number, file in enumerate(files):
        for row in read_rows(file):
            try:
                writer.add(encoder.document(row.fields), number, row.line)
            except Unusable as why:
                bad.add(BadRow(place=f"{file}:{row.line}", reason=why.reason, detail=why.detail))
            n += 1
            if watch is not None and n % EVERY == 0:
                watch(n)
    return bad
