"""Suite `stdlib`: continuations of source files of the standard library that training held out. Not judged.

The text is read from the interpreter at hand. Which files are held out is the rule of training/corpus.py, which depends
on the Python version; a listing in --data-dir (stdlib_files.json) names those of another training, by hash.
"""

import platform
import sysconfig
from functools import partial
from pathlib import Path

from trimode.errors import InvalidInput
from trimode.evaluation.rows import chosen
from trimode.evaluation.suites import Item, Suite
from trimode.training.corpus import entries, list_files, read_files

LISTING = "stdlib_files.json"
PROMPT, CONTINUATION = 1200, 600  # characters, each up to the end of its line


def stdlib(data_dir: Path | None, root: Path | None = None) -> Suite:
    """Pieces of the held-out files: a prompt, and the text that follows it as the reference.

    `root`: the library's folder. Raises InvalidInput for a file that is not the listing's.
    """
    root = root or Path(sysconfig.get_paths()["stdlib"])
    items = [item for path, text in heldout(data_dir, root) for item in pieces(path, text)]
    if not items:
        raise InvalidInput(f"task 'stdlib': {root} holds no source file of which a piece could be continued")
    draw = partial(chosen, items, group=lambda item: str(item.facts["path"]))
    return Suite(name="stdlib", items=draw, judge=lambda item, text: None)


def heldout(data_dir: Path | None, root: Path) -> list[tuple[str, str]]:
    """(path, text) of every held-out file."""
    listing = None if data_dir is None else data_dir / LISTING
    if listing is None or not listing.is_file():
        paths = [entry["path"] for entry in list_files(root) if entry["split"] == "heldout"]
        return [(path, (root / path).read_bytes().decode("utf-8", "replace")) for path in paths]
    paths = [entry["path"] for entry in entries(listing, "heldout")]
    return list(zip(paths, read_files(listing, root, "heldout"), strict=True))


def pieces(path: str, text: str) -> list[Item]:
    """One after the other from the beginning of a file, none overlapping; a rest too short for one is left."""
    items, start = list[Item](), 0
    while True:
        cut = text.find("\n", start + PROMPT) + 1
        stop = text.find("\n", cut + CONTINUATION) + 1
        if not cut or not stop:
            return items
        items.append(
            Item(
                task="stdlib", key=f"{path}:{start}", prompt=text[start:cut], reference=text[cut:stop], max_tokens=128,
                facts={"path": path, "python": platform.python_version()},
            )
        )  # fmt: skip
        start = stop
