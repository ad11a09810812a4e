"""Python source of the standard library as a corpus: a committed list of files with hashes, split by file.

The text itself is read from the interpreter at hand and never shipped; a file that differs from the list is an error.
"""

import hashlib
import json
import random
from pathlib import Path

from trimode.errors import InvalidInput

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


def list_files(library: Path, heldout_share: float = 0.05, seed: int = 0) -> list[dict[str, str]]:
    """[{path, sha256, split}] for every source file worth reading, exact duplicates dropped."""
    rng, seen, listed = random.Random(seed), set[str](), []
    for path in sorted(library.rglob("*.py")):
        relative = path.relative_to(library)
        if any(part in SKIPPED or part.startswith("test_") for part in relative.parts):
            continue
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        if not 200 <= len(data) <= MAX_BYTES or digest in seen:
            continue
        seen.add(digest)
        split = "heldout" if rng.random() < heldout_share else "train"
        listed.append({"path": relative.as_posix(), "sha256": digest, "split": split})
    return listed


def read_files(listing: Path, library: Path, split: str) -> list[str]:
    """The texts of one split, every file checked against its hash."""
    texts = []
    for entry in json.loads(listing.read_text("utf-8"))["files"]:
        if entry["split"] != split:
            continue
        path = library / entry["path"]
        data = path.read_bytes() if path.exists() else b""
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise InvalidInput(f"{path} is missing or differs from {listing.name}: use the Python named there")
        texts.append(data.decode("utf-8"))
    return texts
