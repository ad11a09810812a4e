"""The three files of a token cache, written one document after the other: tokens, answers, documents."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from trimode.training.corpora import facts
from trimode.training.documents import Document

FORMAT = 2
PARTS = ("tokens.bin", "answers.bin", "documents.bin")
COLUMNS = 6  # of documents.bin, int64
STOP, ANSWERS_STOP, FILE, LINE, HOLE, CUTTABLE = range(COLUMNS)


class Writer:
    """What stands in which file: see token_cache.py. Without an error, all is on the disk when it is closed."""

    def __init__(self, folder: Path, n_ids: int) -> None:
        self.dtype = np.dtype(np.uint16 if n_ids <= 1 << 16 else np.uint32)
        self.files: list[BinaryIO] = [(folder / name).open("wb") for name in PARTS]
        self.hashes = [hashlib.sha256() for _ in PARTS]
        self.n_tokens = self.n_answers = self.n_documents = self.largest = 0

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            for file in self.files if kind is None else ():
                file.flush()
                os.fsync(file.fileno())
        finally:
            for file in self.files:
                with suppress(OSError):  # what could not be written has been said already
                    file.close()

    def add(self, document: Document, file: int, line: int) -> None:
        *_, is_cuttable = facts(document)
        self.n_documents += 1
        self.n_tokens += len(document.tokens)
        self.largest = max(self.largest, *document.tokens)
        self.n_answers += len(document.answers)
        record = (self.n_tokens, self.n_answers, file, line, document.hole is not None, is_cuttable)
        rows = (np.array(document.tokens, self.dtype), np.array(document.answers, np.int64), np.array(record, np.int64))
        for stream, digest, row in zip(self.files, self.hashes, rows, strict=True):
            data = row.tobytes()
            stream.write(data)
            digest.update(data)

    @property
    def meta(self) -> dict[str, Any]:
        together = hashlib.sha256("".join(digest.hexdigest() for digest in self.hashes).encode())
        return {
            "format": FORMAT, "fingerprint": together.hexdigest(), "dtype": self.dtype.name, "n_tokens": self.n_tokens,
            "n_answers": self.n_answers, "n_documents": self.n_documents, "largest": self.largest,
        }  # fmt: skip
