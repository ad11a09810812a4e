"""Generations on disk: whole lines, one owner, one plan per folder."""

import json
from pathlib import Path

import pytest

from trimode.errors import InvalidInput, StorageError
from trimode.evaluation.records import GENERATIONS, PLAN, opened

pytestmark = pytest.mark.medium

FACTS = {"checkpoint": "bundled", "seed": 1, "modes": ["ar"], "more": {"deep": 1}}
ROWS = [{"mode": "ar", "task": "json", "key": str(i), "text": "\u2028é\n"} for i in range(3)]


def kept(out: Path, heard: list[str] | None = None) -> list[str]:
    with opened(out, FACTS, [].append if heard is None else heard.append) as records:
        return [key for _, _, key in records.there]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    with opened(tmp_path / "out", FACTS, [].append) as records:
        for row in ROWS:
            records.append(row)
        assert list(records.there.values()) == ROWS
    return tmp_path / "out"


def test_what_was_written_is_there_again(out: Path) -> None:
    heard: list[str] = []
    with opened(out, FACTS, heard.append) as records:
        assert list(records.there.values()) == ROWS
    assert heard == []


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_is_dropped_and_said(out: Path, cut: int) -> None:
    path, heard = out / GENERATIONS, list[str]()
    path.write_bytes(path.read_bytes()[:-cut])
    assert kept(out, heard) == ["0", "1"]
    assert len(heard) == 1
    assert "torn" in heard[0]
    assert [json.loads(line)["key"] for line in path.read_text("utf-8").split("\n")[:-1]] == ["0", "1"]


def test_what_a_crashed_machine_leaves_at_the_end_is_a_torn_line(out: Path) -> None:
    with (out / GENERATIONS).open("ab") as file:
        file.write(b"\0" * 100)
    assert kept(out) == ["0", "1", "2"]


def test_damage_in_the_middle_is_refused_with_its_line(out: Path) -> None:
    path = out / GENERATIONS
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], lines[1][:-9], *lines[2:]]))
    with pytest.raises(InvalidInput, match=r"generations\.jsonl line 2 is not a record"):
        kept(out)


def test_another_evaluation_is_refused_with_the_difference_named_and_nothing_is_changed(out: Path) -> None:
    before = (out / GENERATIONS).read_bytes()
    with (
        pytest.raises(InvalidInput, match=r"its seed is 1, now it is 2; its more\.deep is 1, now it is null"),
        opened(out, FACTS | {"seed": 2, "more": {}}, [].append),
    ):
        pass
    assert (out / GENERATIONS).read_bytes() == before


def test_a_plan_before_the_first_answer_binds_nobody(tmp_path: Path) -> None:
    for facts in (FACTS, FACTS | {"seed": 2}):
        with opened(tmp_path, facts, [].append):
            assert json.loads((tmp_path / PLAN).read_text("utf-8")) == facts
    (tmp_path / PLAN).write_text('{"name": "no plan of an evaluation"}')
    with pytest.raises(InvalidInput, match="holds another evaluation"), opened(tmp_path, FACTS, [].append):
        pass


def test_foreign_files_are_refused(out: Path, tmp_path: Path) -> None:
    (out / PLAN).write_text("{")
    with pytest.raises(InvalidInput, match=r"plan\.json is not the plan"):
        kept(out)
    (out / PLAN).unlink()
    with pytest.raises(InvalidInput, match=r"without the plan\.json"):
        kept(out)


def test_two_evaluations_never_write_one_file(out: Path) -> None:
    with (
        opened(out, FACTS, [].append),
        pytest.raises(InvalidInput, match="being written by another"),
        opened(out, FACTS, [].append),
    ):
        pass


def test_a_full_disk_is_one_sentence_and_what_is_there_stays(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    (tmp_path / GENERATIONS).symlink_to(full)
    with (
        pytest.raises(StorageError, match=r"could not be written, the disk is full; what is there is kept"),
        opened(tmp_path, FACTS, [].append) as records,
    ):
        records.append(ROWS[0])


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not be written"), opened(tmp_path / "file" / "x", FACTS, [].append):
        pass
