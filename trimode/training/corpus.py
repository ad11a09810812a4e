"""Python source of the standard library as a corpus: a committed list of files with hashes, split by file.

The text itself is read from the interpreter at hand and never shipped; a file that differs from the list is an error.
"""

import hashlib
import json
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trimode.errors import InvalidInput
from trimode.training.near_duplicates import near_duplicates

Entry = dict[str, str]  # path, sha256, split

SKIPPED = (
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "encodings",
    "pydoc_data",
    "site-packages",
    "__pycache__",
    "turtledemo",
)
MAX_BYTES = 300_000
FIELDS = ("path", "sha256", "split")


def list_files(library: Path, heldout_share: float = 0.05, seed: int = 0) -> list[dict[str, str]]:
    """[{path, sha256, split}] for every source file worth reading, exact duplicates dropped."""
    rng, seen, listed = random.Random(seed), set[str](), []
    for path in sorted(_sources(library)):
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        if not 200 <= len(data) <= MAX_BYTES or digest in seen:
            continue
        seen.add(digest)
        split = "heldout" if rng.random() < heldout_share else "train"
        listed.append({"path": path.relative_to(library).as_posix(), "sha256": digest, "split": split})
    return listed


def _sources(library: Path) -> Iterator[Path]:
    """Python files outside skipped folders, which are not entered: installed packages can be many."""
    for folder, inner, names in os.walk(library):
        inner[:] = [name for name in inner if not _is_skipped(name)]
        yield from (Path(folder, name) for name in names if name.endswith(".py") and not _is_skipped(name))


def _is_skipped(name: str) -> bool:
    return name in SKIPPED or name.startswith("test_")


def apart(listed: Sequence[Entry], library: Path) -> tuple[list[Entry], list[dict[str, str | float]]]:
    """The entries without near duplicates, and [{path, sha256, split, like, share}] of those that were dropped."""
    texts = {entry["path"]: (library / entry["path"]).read_text("utf-8") for entry in listed}
    doubles = near_duplicates(texts)
    kept = [entry for entry in listed if entry["path"] not in doubles]
    dropped: list[dict[str, str | float]] = []
    for entry in listed:
        if entry["path"] in doubles:
            like, share = doubles[entry["path"]]
            dropped.append({**entry, "like": like, "share": round(share, 3)})
    return kept, dropped


def read_files(listing: Path, library: Path, split: str) -> list[str]:
    """The texts of one split, every file checked against its hash. Raises InvalidInput."""
    texts, strangers = find_listed(listing, library, split)
    if strangers:
        raise InvalidInput(differs(strangers[0], listing))
    return texts


def find_listed(listing: Path, library: Path, split: str) -> tuple[list[str], list[Path]]:
    """The texts of one split in the listing's order, and the files that are missing or differ from their hash."""
    texts, strangers = [], []
    for entry in entries(listing, split):
        path = library / entry["path"]
        data = path.read_bytes() if path.exists() else b""
        if hashlib.sha256(data).hexdigest() == entry["sha256"]:
            texts.append(data.decode("utf-8"))
        else:
            strangers.append(path)
    return texts, strangers


def entries(listing: Path, split: str) -> list[Entry]:
    """The listed files of one split, in the listing's order. Raises InvalidInput."""
    return [entry for entry in _read(listing)["files"] if entry["split"] == split]


def differs(path: Path, listing: Path) -> str:
    """The sentence about a file that is not the listed one."""
    python = _read(listing).get("python", "as named there")
    return f"{path} is missing or differs from {listing.name}: use Python {python}"


def licence(listing: Path) -> str:
    """What the listed files come under."""
    return str(_read(listing).get("licence", "not named"))


def _read(listing: Path) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = json.loads(listing.read_text("utf-8"))
        is_listing = all(isinstance(entry[key], str) for entry in fields["files"] for key in FIELDS)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{listing} is no listing of files with {', '.join(FIELDS)} ({error!r})") from error
    if not is_listing:
        raise InvalidInput(f"{listing} is no listing of files with {', '.join(FIELDS)}, which are strings")
    return fields
