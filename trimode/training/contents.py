"""What files hold, as hashes, remembered by path, size and time of change: a second look at 100 GB takes no time."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkstemp

from trimode.errors import InvalidInput

NAME = "contents.json"


def hashes(files: Sequence[Path], folder: Path) -> list[str]:
    """sha256 of every file; `folder` keeps them for the next time."""
    known = _known(folder / NAME)
    found = {str(file.resolve()): _current(file, known.get(str(file.resolve()))) for file in files}
    if not found.items() <= known.items():
        handle, name = mkstemp(prefix=f"{NAME}.", dir=folder)  # threads and processes may all be at it
        part = Path(name)
        try:
            os.close(handle)
            part.write_text(json.dumps(known | found), "utf-8")
            part.replace(folder / NAME)
        finally:
            part.unlink(missing_ok=True)
    return [str(found[str(file.resolve())][2]) for file in files]


def _current(file: Path, known: list[int | str] | None) -> list[int | str]:
    try:
        facts = file.stat()
        if known is not None and known[:2] == [facts.st_size, facts.st_mtime_ns]:
            return known
        with file.open("rb") as stream:
            return [facts.st_size, facts.st_mtime_ns, hashlib.file_digest(stream, "sha256").hexdigest()]
    except OSError as error:
        raise InvalidInput(f"{file}: this file cannot be read ({error.strerror})") from error


def _known(path: Path) -> dict[str, list[int | str]]:
    try:
        known = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):  # none yet, or cut short: they are only remembered to save time
        return {}
    return known if isinstance(known, dict) else {}
