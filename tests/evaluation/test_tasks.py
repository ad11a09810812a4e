"""The procedural tasks: answers pass, corruptions fail, and the splits never meet."""

import json
import re
from collections.abc import Callable

import pytest

from trimode.evaluation.tasks import TASKS, Example, Split, example, split_of
from trimode.evaluation.tasks.arithmetic import add, multiply, subtract

pytestmark = pytest.mark.medium

N = 50
GARBAGE = (
    "",
    " ",
    "\x00",
    "{",
    "[" * 100_000,
    "(" * 5_000,
    "1" * 10_000,
    "NaN",
    "def f(:",
    "é\ud800",
    "import os\nos.abort()",
    "'\\d' is 1",
    "-" * 9_000 + "1",
)


def examples(task: str) -> list[Example]:
    return [example(task, "train", 0, index) for index in range(N)]


def corruptions(answer: str) -> list[str]:
    """Cut in half, with the last letter or digit changed, and followed by more."""
    position = max(i for i, sign in enumerate(answer) if sign.isalnum())
    changed = "1" if answer[position] != "1" else "2"
    return [
        answer[: len(answer) // 2],
        answer[:position] + changed + answer[position + 1 :],
        answer + "\n) ?",
    ]


@pytest.mark.parametrize("task", TASKS)
def test_the_answer_passes_and_corrupted_answers_fail(task: str) -> None:
    for drawn in examples(task):
        assert drawn.prompt.endswith("\nAnswer:\n")
        assert drawn.answer == drawn.answer.strip()
        assert TASKS[task].check(drawn, drawn.answer)
        assert TASKS[task].check(drawn, drawn.answer + "\n")
        for text in corruptions(drawn.answer):
            assert not TASKS[task].check(drawn, text), text


@pytest.mark.parametrize("task", TASKS)
def test_an_example_is_a_function_of_its_arguments(task: str) -> None:
    assert examples(task) == examples(task)
    assert example(task, "train", 1, 0) != example(task, "train", 0, 0)


@pytest.mark.parametrize("task", TASKS)
def test_train_and_heldout_are_disjoint(task: str) -> None:
    train = {drawn.prompt for drawn in examples(task)}
    heldout = {example(task, "heldout", 0, index).prompt for index in range(N)}
    assert {split_of(prompt) for prompt in train} == {"train"}
    assert {split_of(prompt) for prompt in heldout} == {"heldout"}
    assert not {about(prompt) for prompt in train} & {about(prompt) for prompt in heldout}


def test_a_question_is_on_one_side_in_whatever_words_it_is_asked() -> None:
    sides = [split_of(f"{words}\n{n} + 7\nAnswer:\n") for words in ("Calculate:", "Compute:") for n in range(100)]
    assert sides[:100] == sides[100:]
    assert set(sides) == {"train", "heldout"}


@pytest.mark.parametrize("task", TASKS)
def test_wide_examples_are_no_training_prompts_and_pass(task: str) -> None:
    for index in range(10):
        drawn = example(task, "wide", 0, index)
        assert split_of(drawn.prompt) == "heldout"
        assert TASKS[task].check(drawn, drawn.answer)


@pytest.mark.parametrize("task", ["sort", "lists"])
def test_wide_lists_are_longer_than_any_other(task: str) -> None:
    def lengths(split: Split) -> list[int]:
        return [example(task, split, 0, index).prompt.split("\n")[1].count(",") + 1 for index in range(40)]

    assert max(lengths("train")) <= 8 < min(lengths("wide"))


@pytest.mark.parametrize("task", TASKS)
def test_a_prompt_has_one_answer(task: str) -> None:
    answers: dict[str, str] = {}
    for index in range(500):
        drawn = example(task, "train", 2, index)
        assert answers.setdefault(drawn.prompt, drawn.answer) == drawn.answer


@pytest.mark.parametrize("task", TASKS)
def test_garbage_is_wrong_and_raises_nothing(task: str) -> None:
    for drawn in examples(task)[:5]:
        assert not any(TASKS[task].check(drawn, text) for text in GARBAGE)


def test_written_arithmetic_ends_in_the_true_result() -> None:
    for left in range(0, 1200, 7):
        for right in range(0, 1200, 61):
            assert int(add(left, right)[0][-1].split()[-1]) == left + right
            if left >= right:
                assert int(subtract(left, right)[0][-1].split()[-1]) == left - right
            assert int(multiply(left, right % 10)[0][-1].split()[-1]) == left * (right % 10)


def about(prompt: str) -> str:
    """What a prompt asks about, without the instruction."""
    return prompt.partition("\n")[2]


def test_a_chosen_list_is_decided_item_by_item() -> None:
    drawn = [example("lists", "train", 0, index) for index in range(200)]
    kept = [answer.splitlines() for answer in (item.answer for item in drawn) if ", yes" in answer]
    assert len(kept) > 20
    for lines in kept:
        chosen = [re.split("[,:]", line)[0] for line in lines[:-1] if line.endswith(", yes")]
        assert [str(item) for item in json.loads(lines[-1])] == chosen


@pytest.mark.parametrize(
    ("wish", "is_meant"),
    [
        (r"greater than (\d+)", lambda item, bound: item > bound),
        (r"smaller than (\d+)", lambda item, bound: item < bound),
        (r"the (even) items", lambda item, _: item % 2 == 0),
        (r"the (odd) items", lambda item, _: item % 2 == 1),
    ],
)
def test_what_a_decision_hangs_on_is_true(wish: str, is_meant: Callable[[int, int], bool]) -> None:
    drawn = [example("lists", "train", 0, index) for index in range(300)]
    asked = [(found[1], item.answer.splitlines()[:-1]) for item in drawn if (found := re.search(wish, item.prompt))]
    assert len(asked) > 5
    for word, lines in asked:
        bound = int(word) if word.isdigit() else 0
        for line in lines:
            item, reason = int(re.split("[,:]", line)[0]), line.split(": ")[1].split(",")[0]
            assert is_meant(item, bound) == line.endswith(", yes") != line.endswith(", no")
            assert (
                reason == ("even" if item % 2 == 0 else "odd")
                if not word.isdigit()
                else reason == standing(item, bound)
            )


def standing(left: int, right: int) -> str:
    return {-1: "smaller", 0: "equal", 1: "greater"}[(left > right) - (left < right)]


def test_a_unit_of_sixty_is_worked_out_to_the_true_number() -> None:
    drawn = [example("units", "train", 0, index) for index in range(200)]
    hours = [item for item in drawn if re.fullmatch(r"\d+ h", item.prompt.splitlines()[1])]
    assert hours
    for item in hours:
        n = int(item.prompt.splitlines()[1].split()[0])
        assert item.answer.splitlines()[-2:] == [f"{6 * n} x 10 = {60 * n}", f"{60 * n} min"]


FUNCTION = Example(
    task="function",
    prompt="",
    answer="def f(xs: list[int], low: int) -> int:\n    count = 0\n    for item in xs:\n"
    "        if item > low:\n            count += 1\n    return count",
)


@pytest.mark.parametrize(
    ("body", "is_right"),
    [
        ("return sum(1 for x in xs if x > low)", True),
        ("return len([x for x in xs if x > low])", True),
        ("return sum(1 for x in xs if x >= low)", False),
        ("return sum(range(100000000000))", False),
        ("while True:\n        pass", False),
        (
            "for i in range(90):\n        for j in range(90):\n            low = low * j\n    return low",
            False,
        ),
        ("return sum(1 for i in range(900) for j in range(900) for k in range(900))", False),
        ("for x in xs:\n        xs.append(x)\n    return low", False),
        ("try:\n        f(xs, low)\n    except:\n        f(xs, low)", False),
        ("return f(xs, low)", False),
        ("raise SystemExit", False),
        ("return open('x')", False),
        ("low = [0]\n" + "    low = [low, low]\n" * 30 + "    return low", False),
        ("return len('%999999999d' % low)", False),
        ("return len([0] * abs(low) * 1000 * 1000 * 1000)", False),
        ("xs += [1, 2]; " + "xs.extend(xs); " * 40 + "\n    return low", False),
        ("low = [0]; low.extend(zip(low))\n    return low", False),
        ("low = [0]; low += enumerate(low)\n    return low", False),
        ("return len('xxxxxxxxxx'" + ".replace('x', 'xxxxxxxxxx')" * 12 + ")", False),
        ("return round(low, -10000000000)", False),
        ("low = list(range(999))\n    return sum([low[i:] for i in low], [])", False),
        ("low = []\n    low.append(low)\n    return low", False),
        ("low *= 1\n    return len([x for i, x in enumerate(xs) if x % 1000 > low % 1000])", False),
        ("low *= 1\n    return len([x for i, x in enumerate(xs) if 2 * x - x > low])", True),
    ],
)
def test_a_function_is_judged_by_its_results(body: str, is_right: bool) -> None:
    text = f"def f(xs, low):\n    {body}"
    assert TASKS["function"].check(FUNCTION, text) is is_right


def test_json_is_judged_by_value_and_type() -> None:
    good = Example(task="json", prompt="", answer='{\n  "a": 1,\n  "b": 2.5\n}')
    assert TASKS["json"].check(good, '{"b":2.5,"a":1}')
    assert not TASKS["json"].check(good, '{"b":2.5,"a":1.0}')
    assert not TASKS["json"].check(good, '{"b":2.5,"a":true}')


QUERY = Example(
    task="sql",
    prompt="Write an SQL query.\ntable: cars(owner text, price float)\nrequest: ...\nAnswer:\n",
    answer="SELECT owner\nFROM cars\nWHERE price > 20.5\nORDER BY price;",
)


@pytest.mark.parametrize(
    ("query", "is_right"),
    [
        ("select owner from cars where not price <= 20.5 order by price asc", True),
        ("SELECT owner FROM cars WHERE price >= 20.5 ORDER BY price;", False),
        ("SELECT owner FROM cars WHERE price > 20.5;", False),
        ("SELECT price FROM cars WHERE price > 20.5 ORDER BY price;", False),
        ("DROP TABLE cars;", False),
        ("ATTACH DATABASE 'x.db' AS x;", False),
        ("SELECT load_extension('x');", False),
        ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n;", False),
        ("SELECT randomblob(2000000000);", False),
        ("SELECT hex(zeroblob(400000000)) FROM cars;", False),
        ("SELECT length(printf('%.*c', 900000000, 'x')) FROM cars;", False),
        ("SELECT SUM(instr(hex(zeroblob(9000000)), hex(zeroblob(900000)) || '1')) FROM cars;", False),
        ("SELECT a.owner FROM cars a, cars b, cars c, cars d ORDER BY b.price + c.price;", False),
    ],
)
def test_a_query_is_judged_by_what_it_finds(query: str, is_right: bool) -> None:
    assert TASKS["sql"].check(QUERY, query) is is_right


def test_steps_may_differ_where_the_last_line_is_right() -> None:
    worked = example("sort", "train", 0, 0)
    assert TASKS["sort"].check(worked, worked.answer.rpartition("\n")[2])
    assert not TASKS["sort"].check(worked, worked.answer.rpartition("\n")[0])
