"""Data is made once, whole or not at all, under a name that changes with all it depends on; what is missing is told."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from trimode.errors import InvalidInput
from trimode.evaluation import corpora
from trimode.evaluation.corpora import Planned, planned, prepare
from trimode.evaluation.corpora.base import Found, Row, Sources
from trimode.training.recipe import Recipe, read_recipe
from trimode.training.sources import find_files

pytestmark = pytest.mark.medium

TEXT = """
out = "run"
[model]
config = "config.json"
tokenizer = "words"
[data]
train = ["own.jsonl", "make:tasks", "make:gsm8k"]
heldout = ["make:held"]
[[data.make]]
name = "tasks"
kind = "procedural"
rows = 5
[[data.make]]
name = "held"
kind = "procedural"
rows = 3
split = "heldout"
[[data.make]]
name = "gsm8k"
kind = "gsm8k"
path = "gsm8k.jsonl"
sha256 = "HASH"
licence = "MIT"
[[data.make]]
name = "unused"
kind = "gsm8k"
path = "nowhere.jsonl"
sha256 = "HASH"
licence = "MIT"
[[stage]]
name = "first"
[[stage]]
name = "second"
data = { train = ["make:gsm8k"] }
"""
LINE = json.dumps({"question": "1+1?", "answer": "2"}) + "\n"
HASH = hashlib.sha256(LINE.encode()).hexdigest()


def recipe(folder: Path, *changes: str, is_there: bool = True) -> Recipe:
    if is_there:
        (folder / "gsm8k.jsonl").write_text(LINE, "utf-8")
    (folder / "recipe.toml").write_text(TEXT.replace("HASH", HASH), "utf-8")
    return read_recipe(folder / "recipe.toml", changes)


def made(folder: Path) -> dict[str, Path]:
    return {path.name.partition("-")[0]: path for path in (folder / "run" / "data").iterdir()}


def silent(text: str) -> None:
    pass


def test_stages_get_files_for_names_and_only_what_they_name_is_made(tmp_path: Path) -> None:
    ready = prepare(recipe(tmp_path), say=silent)
    files = made(tmp_path)
    assert set(files) == {"tasks", "held", "gsm8k"}
    first, second = ready.stages
    assert first.data.train == (str(tmp_path / "own.jsonl"), str(files["tasks"]), str(files["gsm8k"]))
    assert (first.data.heldout, second.data.train) == ((str(files["held"]),), (str(files["gsm8k"]),))
    assert {name: len(path.read_text("utf-8").splitlines()) for name, path in files.items()} == {
        "tasks": 5, "held": 3, "gsm8k": 1,
    }  # fmt: skip


def test_what_is_there_is_used_again_and_a_change_makes_another_file(tmp_path: Path) -> None:
    prepare(recipe(tmp_path), say=silent)
    files = made(tmp_path)
    files["tasks"].write_text('{"text": "kept"}\n', "utf-8")
    prepare(recipe(tmp_path), say=silent)
    assert files["tasks"].read_text("utf-8") == '{"text": "kept"}\n'
    ready = prepare(recipe(tmp_path, "make.tasks.seed=1"), say=silent)
    assert ready.stages[0].data.train[1] != str(files["tasks"])
    assert ready.stages[0].data.heldout == (str(files["held"]),)
    assert len(list((tmp_path / "run" / "data").iterdir())) == 4


def test_a_name_changes_with_what_the_rows_are_made_of(tmp_path: Path) -> None:
    def path(inputs: dict[str, Any]) -> Path:
        found = Found(rows=tuple, inputs=inputs, facts={})
        return Planned(make=recipe(tmp_path).makes[0], folder=tmp_path, found=found).path

    assert path({"x": 1}) == path({"x": 1}) != path({"x": 2})


@dataclass(frozen=True, kw_only=True)
class Failing:
    """One row, then none that can be written."""

    split: str = "train"

    def find(self, sources: Sources) -> Found:
        def rows() -> Iterator[Row]:
            yield {"text": "one"}
            raise InvalidInput("the rest is damaged")

        return Found(rows=rows, inputs={}, facts={})


def test_an_interrupted_making_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(corpora.KINDS, "failing", Failing)
    changed = recipe(tmp_path, "data.make=[{name='tasks', kind='failing'}]", "data.train=['make:tasks']",
                     "data.heldout=[]", "stage.second.data={}")  # fmt: skip
    with pytest.raises(InvalidInput, match="the rest is damaged"):
        prepare(changed, say=silent)
    assert list((tmp_path / "run" / "data").iterdir()) == []


def test_missing_data_is_an_error_that_names_the_file_and_the_way_around(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"make 'gsm8k': .*gsm8k\.jsonl cannot be read .*--data-dir; --skip-missing"):
        prepare(recipe(tmp_path, is_there=False), say=silent)


def test_skipped_data_is_told_and_a_stage_without_any_is_refused(tmp_path: Path) -> None:
    said: list[str] = []
    changes = ("stage.second.data.train=['make:gsm8k', 'make:tasks']",)
    ready = prepare(recipe(tmp_path, *changes, is_there=False), skip_missing=True, say=said.append)
    assert any(text.startswith("gsm8k (gsm8k): left out, ") for text in said)
    assert [len(stage.data.train) for stage in ready.stages] == [2, 1]
    tasks, gsm8k, held = ready.origins["first"]
    assert (tasks["name"], tasks["rows_made"], held["rows_made"]) == ("tasks", 5, 3)
    assert "gsm8k.jsonl cannot be read" in gsm8k["missing"]
    with pytest.raises(InvalidInput, match="stage 'second': all data that it is to learn from is missing"):
        prepare(recipe(tmp_path, is_there=False), skip_missing=True, say=silent)


def test_public_data_is_looked_for_in_the_named_folder(tmp_path: Path) -> None:
    asked = recipe(tmp_path)
    (tmp_path / "sets").mkdir()
    (tmp_path / "gsm8k.jsonl").rename(tmp_path / "sets" / "gsm8k.jsonl")
    assert prepare(asked, tmp_path / "sets", say=silent).origins["second"][0]["rows_made"] == 1


def test_a_finished_stage_needs_nothing(tmp_path: Path) -> None:
    (tmp_path / "run" / "first" / "final").mkdir(parents=True)
    ready = prepare(recipe(tmp_path), say=silent)
    assert set(made(tmp_path)) == {"gsm8k", "held"}  # not the tasks, which only the first one learns from
    assert set(ready.origins) == {"second"}
    assert "make:tasks" in ready.stages[0].data.train


def test_planning_makes_nothing_and_says_what_is_to_be_made(tmp_path: Path) -> None:
    plans = planned(recipe(tmp_path, is_there=False))
    assert [plan.make.name for plan in plans] == ["tasks", "held", "gsm8k"]
    assert str(plans[0]) == f"tasks (procedural): {plans[0].path}, to be made"
    assert str(plans[2]).startswith("gsm8k (gsm8k): left out, ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["make.tasks.kind=tsks"], "make 'tasks': kind is 'tsks', allowed are procedural, facts, copies"),
        (["make.tasks.rws=3"], "make 'tasks' has an unknown key 'rws': did you mean 'rows'?"),
        (["make.tasks.tasks={json='a'}"], "make 'tasks': tasks.json is 'a', of the type float is expected"),
        (["make.tasks.split=heldout"], "stage 'first': make 'tasks' is of the heldout split, not to be trained"),
        (["make.tasks.rows=0"], "make 'tasks': rows is 0, allowed is at least 1"),
    ],
)
def test_what_is_wrong_with_a_table_is_named(tmp_path: Path, changes: list[str], words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        planned(recipe(tmp_path, *changes))
    assert words in str(refused.value)


def test_a_folder_with_signs_of_a_glob_in_its_name_is_no_pattern(tmp_path: Path) -> None:
    folder = tmp_path / "a[b]*"
    folder.mkdir()
    ready = prepare(recipe(folder), say=silent)
    assert find_files(ready.stages[1].data.train) == (made(folder)["gsm8k"],)
