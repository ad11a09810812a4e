"""The code corpus: the same list everywhere, split by file, and no file that differs from the list."""

import json
import os
import re
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.test_layers import ROOT
from trimode.errors import InvalidInput
from trimode.training.corpus import MAX_BYTES, apart, list_files, read_files

LISTING = ROOT / "recipes" / "stdlib_files.json"


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Forty files worth reading in two folders, and some that are not."""
    root = tmp_path / "library"
    for index in range(40):
        write(root / ("deep/er" if index % 2 else ".") / f"module_{index}.py", f"N = {index}\n" + "# text\n" * 40)
    for skipped in ("test/case.py", "lib2to3/fixer.py", "test_this.py", "site-packages/theirs.py"):
        write(root / skipped, "# skipped\n" * 40)
    write(root / "short.py", "x = 1\n")
    write(root / "long.py", "#" * (MAX_BYTES + 1))
    write(root / "notes.txt", "not Python\n" * 40)
    write(root / "zz_copy.py", "N = 0\n" + "# text\n" * 40)  # same as module_0
    return root


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def listing(library: Path, **options: float) -> Path:
    path = library.parent / "files.json"
    path.write_text(json.dumps({"files": list_files(library, **options)}), "utf-8")  # type: ignore[arg-type]
    return path


def test_listing_is_deterministic(library: Path) -> None:
    assert list_files(library) == list_files(library)
    assert list_files(library, seed=1) != list_files(library, seed=2)


def test_only_files_worth_reading_are_listed_once(library: Path) -> None:
    paths = [entry["path"] for entry in list_files(library)]
    assert paths == sorted(paths, key=lambda path: Path(path).parts)
    assert sorted(paths) == sorted(f"{'deep/er/' if i % 2 else ''}module_{i}.py" for i in range(40))


def test_folders_of_others_are_not_entered(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[str] = []
    listed = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: entered.append(Path(path).name) or listed(path))
    list_files(library)
    assert set(entered) == {"library", "deep", "er"}


def test_splits_are_disjoint_and_together_everything(library: Path) -> None:
    path = listing(library, heldout_share=0.3)
    train, heldout = (read_files(path, library, split) for split in ("train", "heldout"))
    assert not set(train) & set(heldout)
    assert len(heldout) > 3
    assert len(train) + len(heldout) == 40


def test_a_split_is_read_in_the_order_of_the_list(library: Path) -> None:
    path = listing(library, heldout_share=0.0)
    texts = read_files(path, library, "train")
    assert texts == [(library / entry["path"]).read_text("utf-8") for entry in list_files(library)]


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_file_that_differs_from_the_list_is_refused_by_name(library: Path, damage: str) -> None:
    path = listing(library, heldout_share=0.0)
    victim = library / "deep" / "er" / "module_7.py"
    if damage == "changed":
        victim.write_text(victim.read_text("utf-8") + "\n", "utf-8")
    else:
        victim.unlink()
    with pytest.raises(InvalidInput, match=re.escape(str(victim))) as error:
        read_files(path, library, "train")
    assert "files.json" in str(error.value)


def test_a_damaged_file_of_the_other_split_does_not_matter(library: Path) -> None:
    path = listing(library, heldout_share=0.3)
    entry = next(e for e in json.loads(path.read_text("utf-8"))["files"] if e["split"] == "heldout")
    (library / entry["path"]).unlink()
    assert read_files(path, library, "train")


def test_near_duplicates_are_told_apart_with_what_they_are_like(library: Path) -> None:
    text = "".join(f"x = {i}\n" for i in range(60))
    write(library / "whole.py", text)
    write(library / "part.py", text[: len(text) // 2] + "# and more\n")
    listed = list_files(library)
    kept, dropped = apart(listed, library)
    names = {entry["path"]: entry for entry in dropped}
    assert names["part.py"]["like"] == "whole.py"
    assert 0.5 <= float(names["part.py"]["share"]) < 1
    assert sorted([*(entry["path"] for entry in kept), *names]) == sorted(entry["path"] for entry in listed)
    assert "whole.py" not in names


# The committed list.


def committed() -> dict[str, object]:
    return json.loads(LISTING.read_text("utf-8"))  # type: ignore[no-any-return]


def entries() -> list[dict[str, str]]:
    return committed()["files"]  # type: ignore[return-value]


def test_the_committed_list_is_whole() -> None:
    assert re.fullmatch(r"3\.\d+\.\d+", str(committed()["python"]))
    assert committed()["licence"] == "PSF-2.0"
    assert len(entries()) > 100
    for entry in entries():
        assert set(entry) == {"path", "sha256", "split"}
        assert re.fullmatch(r"[0-9a-f]{64}", entry["sha256"])
        assert entry["split"] in ("train", "heldout")
        assert not Path(entry["path"]).is_absolute()
        assert ".." not in Path(entry["path"]).parts


def test_the_committed_list_tells_its_near_duplicates() -> None:
    kept = {entry["path"] for entry in entries()}
    told: list[dict[str, str]] = committed()["near_duplicates"]  # type: ignore[assignment]
    assert told
    for entry in told:
        assert set(entry) == {"path", "sha256", "split", "like", "share"}
        assert entry["path"] not in kept
        assert entry["like"] in kept


def test_the_committed_splits_share_no_path_and_no_text() -> None:
    for field in ("path", "sha256"):
        values = [entry[field] for entry in entries()]
        assert len(set(values)) == len(values)
    sizes = [sum(entry["split"] == split for entry in entries()) for split in ("train", "heldout")]
    assert 0.02 < sizes[1] / sum(sizes) < 0.1


def test_the_committed_list_reads_on_the_python_it_names() -> None:
    named, running = committed()["python"], sys.version.split()[0]
    if named != running:
        pytest.skip(f"the list names Python {named}, this is {running}")
    texts = read_files(LISTING, Path(sysconfig.get_paths()["stdlib"]), "heldout")
    assert len(texts) == sum(entry["split"] == "heldout" for entry in entries())
