"""Folders that are complete or absent. Knows no model."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trimode.errors import StorageError


@contextmanager
def complete_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` to write into, which becomes `out` (absent or empty) at the end; gone after an error.

    Raises StorageError for a full disk and other failures to write.
    """
    out = out.resolve()
    folder = out.with_name(f".{out.name}.{os.getpid()}.unfinished")
    try:
        folder.mkdir(parents=True)
        yield folder
        folder.rename(out)
    except OSError as error:
        full = error.errno == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error)  # a library's may have no number
        reason = f"the disk is full ({error.strerror or error})" if full else str(error)
        raise StorageError(f"{out}: not written, {reason}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
