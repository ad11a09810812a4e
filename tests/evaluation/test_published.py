"""Published sets: prompts, what counts as right, and that every item is there. Small files stand in for real ones."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from trimode.errors import InvalidInput
from trimode.evaluation import library
from trimode.evaluation.corpora.published import Gsm8k
from trimode.evaluation.library import pieces, stdlib
from trimode.evaluation.published import published, result
from trimode.training.corpus import list_files

pytestmark = pytest.mark.medium

PROBLEMS = [
    {"question": "Ann has 2 pens and buys 3. How many has she?", "answer": "2+3=<<2+3=5>>5 pens.\n#### 5"},
    {"question": "A car costs $1,200, half is paid. What is left?", "answer": "1200/2=600\n#### 1,600"},
]
QUESTIONS = [
    {"question_id": 80 + i, "category": kind, "turns": [f"Tell me of {kind} {i}.", "More."]}
    for i, kind in enumerate(["writing", "math", "qa", "qa", "qa", "qa"])
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name, found in (("gsm8k/test.jsonl", PROBLEMS), ("spec_bench/question.jsonl", QUESTIONS)):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in found), "utf-8")
    return tmp_path


# GSM8K


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 5 pens.\n#### 5", "5"),
        ("#### 7\n\nBob has 9 and #### 8", "7"),
        ("It costs $1,200.50 in all.", "1200.5"),
        ("#### -3", "-3"),
        ("it falls to -$4.", "-4"),
        ("16-3", "3"),
        ("Answer: 18.", "18"),
        ("4, 5,6", "6"),
        ("x2", "2"),
        ("1,234,567", "1234567"),
        ("5 is not behind the mark ####", None),
        ("none", None),
        ("", None),
    ],
)
def test_the_number_is_the_first_behind_the_mark_or_else_the_last(text: str, number: str | None) -> None:
    assert result(text) == (None if number is None else Decimal(number))


def test_an_answer_is_right_by_its_number_alone(data: Path) -> None:
    suite = published("gsm8k", data)
    first, second = suite.items(None, 0)
    assert first.key == "test/0" and first.reference == PROBLEMS[0]["answer"]
    assert isinstance(first.prompt, str) and first.prompt.endswith("How many has she?\nAnswer:\n")
    assert [suite.judge(first, text) for text in ("#### 5.0", "$5", "#### 6", "", "so 5, #### 6")] == [
        True, True, False, False, False,
    ]  # fmt: skip
    assert suite.judge(second, "1600 dollars") is True


def test_in_a_chat_a_problem_is_asked_as_it_is_trained(data: Path) -> None:
    item = published("gsm8k", data, chat=True).items(None, 0)[0]
    row = Gsm8k(path="", sha256="", licence="").row(PROBLEMS[0])
    assert list(item.prompt) == row["messages"][:1]


def test_a_reference_without_a_number_is_refused(data: Path) -> None:
    (data / "gsm8k/test.jsonl").write_text('{"question": "a", "answer": "b"}\n', "utf-8")
    with pytest.raises(InvalidInput, match=r"row 1 .*ends in no number"):
        published("gsm8k", data)


# Spec-Bench


def test_questions_are_first_turns_of_all_categories_and_not_judged(data: Path) -> None:
    suite = published("spec_bench", data)
    assert [item.key for item in suite.items(None, 0)] == ["80", "81", "82", "83", "84", "85"]
    three = suite.items(3, 0)
    assert [item.facts["category"] for item in three] == ["writing", "math", "qa"]
    assert three[0].prompt == ({"role": "user", "content": "Tell me of writing 0."},)
    assert suite.judge(three[0], "anything") is None


@pytest.mark.parametrize("turns", [[], [3]])
def test_a_question_without_text_is_refused(data: Path, turns: list[object]) -> None:
    row = {"question_id": 1, "category": "qa", "turns": turns}
    (data / "spec_bench/question.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    with pytest.raises(InvalidInput, match=r"row 1 \(--data-dir\): turns has no text"):
        published("spec_bench", data)


# The standard library


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for index in range(60):
        path = tmp_path / "library" / f"module_{index}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"x_{index}_{line} = {line} * {index}\n" for line in range(150 + index)), "utf-8")
    return tmp_path / "library"


def test_pieces_follow_one_another_and_end_with_lines() -> None:
    text = "".join(f"line_{n} = {n}\n" for n in range(400))
    items = pieces("a.py", text)
    assert len(items) > 2
    assert text.startswith("".join(f"{item.prompt}{item.reference}" for item in items))
    assert all(len(item.prompt) >= library.PROMPT and item.prompt[-1] == "\n" for item in items)
    assert all(item.reference and len(item.reference) >= library.CONTINUATION for item in items)
    assert len({item.key for item in items}) == len(items)
    assert pieces("a.py", text[:1000]) == pieces("a.py", "x" * 9999) == []


def test_only_heldout_files_are_continued_and_nobody_judges(root: Path) -> None:
    suite = stdlib(None, root)
    heldout = {entry["path"] for entry in list_files(root) if entry["split"] == "heldout"}
    found = suite.items(None, 0)
    assert heldout and {item.facts["path"] for item in found} <= heldout
    assert suite.judge(found[0], "") is None


def test_a_listing_of_the_data_folder_goes_before_the_rule(root: Path, tmp_path: Path) -> None:
    entries = [entry | {"split": "heldout"} for entry in list_files(root) if entry["path"] == "module_29.py"]
    listing = tmp_path / "stdlib_files.json"
    listing.write_text(json.dumps({"files": entries}), "utf-8")
    assert {item.facts["path"] for item in stdlib(tmp_path, root).items(None, 0)} == {"module_29.py"}
    (root / "module_29.py").write_text("changed", "utf-8")
    with pytest.raises(InvalidInput, match=r"module_29\.py is missing or differs"):
        stdlib(tmp_path, root)
    listing.write_text("[]", "utf-8")
    with pytest.raises(InvalidInput, match=r"stdlib_files.json is no listing"):
        stdlib(tmp_path, root)


def test_a_library_without_sources_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="holds no source file"):
        stdlib(None, tmp_path)


# All of them


@pytest.mark.parametrize("name", ["stdlib", "humaneval_infilling"])
def test_what_continues_a_text_has_no_chat_form(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"{name}.*no chat form"):
        published(name, None, chat=True)


def test_unknown_sets_are_refused() -> None:
    with pytest.raises(InvalidInput, match="gsm9k"):
        published("gsm9k", None)
