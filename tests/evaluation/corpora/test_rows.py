"""Rows of every kind: pure functions of a seed and an index, from train splits alone, shaped as training reads them."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.test_layers import ROOT
from trimode.errors import InvalidInput
from trimode.evaluation.corpora.base import Missing, Row, Sources
from trimode.evaluation.corpora.library import Holes, Library
from trimode.evaluation.corpora.procedural import FACTS, Copies, Facts, Procedural
from trimode.evaluation.corpora.published import Gsm8k, Mbpp
from trimode.evaluation.tasks import TASKS, split_of
from trimode.tokenizer import Tokenizer
from trimode.training.sources import texts

pytestmark = pytest.mark.medium

CODE = "".join(f"def f_{i}(x):\n    y = x + {i}\n\n    return y\n\n\n" for i in range(30))


def sources(folder: Path, skip_missing: bool = False) -> Sources:
    def tokenizer() -> Tokenizer:
        return Tokenizer.load(ROOT / "trimode" / "assets")

    return Sources(tokenizer=tokenizer, library=folder / "lib", data=folder, skip_missing=skip_missing)


def write_library(folder: Path) -> Path:
    """Three files of train, one heldout; gives the listing."""
    (folder / "lib").mkdir()
    entries = []
    for number, split in enumerate(("train", "train", "heldout", "train")):
        text = CODE.replace("f_", f"g{number}_")
        (folder / "lib" / f"m{number}.py").write_text(text, "utf-8")
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        entries.append({"path": f"m{number}.py", "sha256": sha256, "split": split})
    (folder / "files.json").write_text(json.dumps({"licence": "mine", "files": entries}), "utf-8")
    return folder / "files.json"


def write_lines(path: Path, *lines: dict[str, Any]) -> str:
    """Gives the hash."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def prompt(row: Row) -> str:
    return str(row["messages"][0]["content"] if "messages" in row else row["prompt"])


def test_a_task_row_depends_on_seed_and_index_alone() -> None:
    few, many, other = (list(Procedural(rows=n, seed=s).make()) for n, s in ((10, 1), (30, 1), (10, 2)))
    assert few == many[:10] == [Procedural(rows=1, seed=1).row(index) for index in range(10)]
    assert few != other


@pytest.mark.parametrize("task", FACTS)
def test_facts_depend_on_seed_and_index_alone(task: str) -> None:
    few, many, other = (list(Facts(rows=n, seed=s, task=task).make()) for n, s in ((3, 1), (9, 1), (3, 0)))
    assert few == many[:3] != other


def test_sums_are_true() -> None:
    for line in str(Facts(rows=1, lines=300).row(0)["text"]).splitlines():
        for step in line.replace("x", "*").split(" borrow ")[0].split(", "):
            left, result = step.split(" = ")
            found = sum(int(n) * sign for n, sign in signed(left)) if "*" not in left else product(left)
            assert found % 10 == int(result) % 10 and ("-" in left or found == int(result)), line


def test_pairs_stand_as_they_are_said_to() -> None:
    row = Facts(rows=1, task="sort", lines=300).row(0)
    lines = str(row["completion"]).splitlines()
    assert str(row["prompt"]).strip().split(", ") == [line.split(":")[0].replace(",", "") for line in lines]
    for line in lines:
        pair, found = line.split(": ")
        left, right = (int(item) if item.isdigit() else item for item in pair.split(", "))
        assert found == ("equal" if left == right else "smaller" if left < right else "greater")  # type: ignore[operator]


def test_words_are_written_in_the_forms_that_are_asked_for() -> None:
    row = Facts(rows=1, task="text", lines=300).row(0)
    for word, line in zip(str(row["prompt"]).strip().split(", "), str(row["completion"]).splitlines(), strict=True):
        assert line == f"{word}: {word.lower()}, {word.capitalize()}, {word.upper()}, {word[:1]}"


def signed(text: str) -> list[tuple[str, int]]:
    """7 - 2 - 1 as numbers with their signs."""
    first, *rest = text.replace("- ", "-").replace("+ ", "+").split()
    return [(first, 1), *((part[1:], -1 if part[0] == "-" else 1) for part in rest)]


def product(text: str) -> int:
    left, right = text.split(" * ")
    return int(left) * int(right)


def test_task_rows_come_from_the_split_that_is_named() -> None:
    for split in ("train", "heldout"):
        assert {split_of(prompt(row)) for row in Procedural(rows=40, split=split).make()} == {split}


def test_tasks_come_as_often_as_their_weights_say_and_as_chats_in_their_share() -> None:
    rows = list(Procedural(rows=400, tasks={"json": 3.0, "sort": 1}, chat_share=0.25).make())
    only = {prompt(row) for row in Procedural(rows=400, tasks={"json": 1.0}, chat_share=0.0).make()}
    share = sum(prompt(row) in only for row in rows) / 400
    assert 0.65 < share < 0.85
    assert 0.15 < sum("messages" in row for row in rows) / 400 < 0.35
    assert all(texts(row)[0] in ("messages", "prompt") for row in rows)


@pytest.mark.parametrize(
    ("tasks", "words"), [({"jsn": 1.0}, "tasks has 'jsn', allowed are"), ({"json": 0.0}, "above 0")]
)
def test_a_task_that_is_not_there_or_weighs_nothing_is_refused(tasks: dict[str, float], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        Procedural(tasks=tasks)


def test_all_tasks_are_drawn_where_none_is_named(tmp_path: Path) -> None:
    found = Procedural().find(sources(tmp_path))
    assert found.facts == {"tasks": sorted(TASKS)}


def test_a_copy_is_its_prompt_again_in_whole_characters(tmp_path: Path) -> None:
    rows = list(Copies(rows=20, shortest=2, longest=5).find(sources(tmp_path)).rows())
    tokenizer = Tokenizer.load(ROOT / "trimode" / "assets")
    for row in rows:
        assert row["prompt"] == row["completion"] + "\n"
        assert "\ufffd" not in row["completion"]
        assert not set(tokenizer.encode(row["completion"])) & set(tokenizer.special.values())
    assert len({row["prompt"] for row in rows}) == 20
    with pytest.raises(InvalidInput, match="shortest is 9, allowed is at most longest, 5"):
        Copies(shortest=9, longest=5)


def test_a_library_row_is_a_file_of_its_split(tmp_path: Path) -> None:
    listing = write_library(tmp_path)
    found = Library(listing=listing, every=2, repeat=2).find(sources(tmp_path))
    assert [row["text"].partition("_")[0] for row in found.rows()] == ["def g0", "def g3"] * 2
    assert found.facts == {"licence": "mine"}


def test_a_changed_file_of_the_library_is_an_error_or_is_left_out_and_named(tmp_path: Path) -> None:
    listing = write_library(tmp_path)
    (tmp_path / "lib" / "m1.py").write_text("changed", "utf-8")
    with pytest.raises(Missing, match=r"m1\.py is missing or differs from files\.json"):
        Library(listing=listing).find(sources(tmp_path))
    found = Library(listing=listing).find(sources(tmp_path, skip_missing=True))
    assert (len(list(found.rows())), found.missing) == (2, ("m1.py",))
    for number in (0, 3):
        (tmp_path / "lib" / f"m{number}.py").unlink()
    with pytest.raises(Missing, match="has none of the files"):
        Library(listing=listing).find(sources(tmp_path, skip_missing=True))


def test_a_hole_with_its_sides_is_a_piece_of_a_training_file(tmp_path: Path) -> None:
    rows = list(Holes(listing=write_library(tmp_path), rows=200, context=60).find(sources(tmp_path)).rows())
    whole = [(tmp_path / "lib" / f"m{number}.py").read_text("utf-8") for number in (0, 1, 3)]
    seen = Counter[str]()
    for row in rows:
        assert texts(row)[0] == "prefix"
        assert row["middle"].strip()
        assert not row["middle"].endswith("\n")
        assert sum(row["prefix"] + row["middle"] + row["suffix"] in text for text in whole) == 1
        seen["lines" if "\n" in row["middle"] else "line" if row["prefix"].endswith("\n") else "part"] += 1
        whole_lines = row["prefix"].rpartition("\n")[0]
        assert len(whole_lines) <= 60
    assert min(seen[kind] for kind in ("lines", "line", "part")) > 20


@pytest.mark.parametrize("text", ["", "\n" * 9, "#" * 999 + "\n"])
def test_files_without_a_line_to_fill_in_are_a_sentence(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"a\.json: .*'train' have no lines"):
        list(Holes(listing=Path("a.json")).make([text]))


def test_worked_solutions_lose_their_calculator_unless_it_is_asked_for(tmp_path: Path) -> None:
    given = {"question": "48/2?", "answer": "48/2 = <<48/2=24>>24\n#### 24"}
    sha256 = write_lines(tmp_path / "g.jsonl", given)
    for calculations, answer in ((False, "48/2 = 24\n#### 24"), (True, given["answer"])):
        kind = Gsm8k(path="g.jsonl", sha256=sha256, licence="MIT", repeat=2, calculations=calculations)
        rows = list(kind.find(sources(tmp_path)).rows())
        turns = [{"role": "user", "content": "48/2?"}, {"role": "assistant", "content": answer}]
        assert rows == [{"messages": turns}] * 2


def test_only_the_train_split_of_mbpp_becomes_rows_in_pythons_own_lines(tmp_path: Path) -> None:
    problems = [
        {
            "task_id": i,
            "text": f"Do {i}.",
            "code": "def f():\r\n\treturn 1 \r\n",
            "test_list": ["assert f()", "assert 1"],
        }
        for i in (1, 10, 11, 510, 511, 600, 601, 974, 975)
    ]
    sha256 = write_lines(tmp_path / "m.jsonl", *problems)
    rows = list(Mbpp(path="m.jsonl", sha256=sha256, licence="CC-BY-4.0").find(sources(tmp_path)).rows())
    questions, answers = ([row["messages"][turn]["content"] for row in rows] for turn in (0, 1))
    tests = "\nYour code should pass these tests:\nassert f()\nassert 1"
    assert questions == [f"Do 601.{tests}", f"Do 974.{tests}"]
    assert set(answers) == {"def f():\n    return 1\n"}


def test_a_published_file_that_is_missing_or_another_one_is_named(tmp_path: Path) -> None:
    kind = Gsm8k(path="g.jsonl", sha256="0" * 64, licence="MIT")
    with pytest.raises(Missing, match=r"g\.jsonl cannot be read .*--data-dir"):
        kind.find(sources(tmp_path))
    write_lines(tmp_path / "g.jsonl", {"question": "?"})
    with pytest.raises(
        Missing, match=r"g\.jsonl is not the file that the recipe means: its sha256 is [0-9a-f]{64}, not 0"
    ):
        kind.find(sources(tmp_path))


def test_a_line_that_is_not_as_published_is_a_sentence(tmp_path: Path) -> None:
    sha256 = write_lines(tmp_path / "g.jsonl", {"question": "?"})
    with pytest.raises(InvalidInput, match=r"g\.jsonl:1: this line is not as published"):
        list(Gsm8k(path="g.jsonl", sha256=sha256, licence="MIT").find(sources(tmp_path)).rows())
