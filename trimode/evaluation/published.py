"""Published sets as suites, read from --data-dir: which files, which prompts, what counts as right. Runs no model.

GSM8K (arXiv 2110.14168) and Spec-Bench (arXiv 2401.07851) are here; sets whose answers are programs are in coding.py,
the standard library's unseen files in library.py.
"""

import re
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path

from trimode.errors import InvalidInput
from trimode.evaluation import coding, library
from trimode.evaluation.rows import Row, chosen, rows
from trimode.evaluation.suites import Item, Suite

GSM8K_REQUEST = "Solve this problem step by step. Write the result as a number behind #### on the last line."
TEXTS_ALONE = ("humaneval_infilling", "stdlib")
_NUMBER = re.compile(r"(?:(?<![\w.)])-)?\$?(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?")


def published(name: str, data_dir: Path | None, *, chat: bool = False, allow_unsandboxed: bool = False) -> Suite:
    """The suite of a published set. `chat`: prompts fit a conversation.

    Raises InvalidInput for a missing or damaged file, a set that has no chat form, or one whose programs cannot be run.
    """
    if chat and name in TEXTS_ALONE:
        raise InvalidInput(f"task {name!r} continues texts and has no chat form: leave it out, or --chat")
    makers: dict[str, Callable[[], Suite]] = {
        "gsm8k": partial(gsm8k, data_dir, chat),
        "humaneval": partial(coding.humaneval, data_dir, chat, allow_unsandboxed),
        "mbpp": partial(coding.mbpp, data_dir, chat, allow_unsandboxed),
        "humaneval_infilling": partial(coding.humaneval_infilling, data_dir, allow_unsandboxed),
        "spec_bench": partial(spec_bench, data_dir),
        "stdlib": partial(library.stdlib, data_dir),
    }
    if name not in makers:
        raise InvalidInput(f"published set is {name!r}, allowed are {', '.join(makers)}")
    return makers[name]()


def gsm8k(data_dir: Path | None, chat: bool = False) -> Suite:
    """Grade-school problems, no example before them; right is the right number, whatever the way to it.

    In a chat the problem is all of the turn, as recipes train it (corpora/published.py).
    """
    found = rows(data_dir, "gsm8k/test.jsonl", {"question": str, "answer": str})
    for number, row in enumerate(found, 1):
        if result(row["answer"]) is None:
            raise InvalidInput(f"gsm8k/test.jsonl, row {number} (--data-dir): the answer ends in no number")
    items = [_problem(index, row, chat) for index, row in enumerate(found)]
    return Suite(name="gsm8k", items=partial(chosen, items), judge=_is_right_number)


def _problem(index: int, row: Row, chat: bool) -> Item:
    question = row["question"]
    return Item(
        task="gsm8k", key=f"test/{index}", max_tokens=512, reference=row["answer"],
        prompt=({"role": "user", "content": question},) if chat else f"{GSM8K_REQUEST}\n{question}\nAnswer:\n",
    )  # fmt: skip


def _is_right_number(item: Item, text: str) -> bool:
    return result(text) is not None and result(text) == result(item.reference or "")


def result(text: str) -> Decimal | None:
    """The number an answer gives: the first one behind the first `####`, or without such a mark the last of all.

    Thousands may be grouped by commas, a dollar sign may stand before it; 18, 18.0 and $18 are the same.
    """
    _, mark, behind = text.partition("####")
    found = list(_NUMBER.finditer(behind if mark else text))
    if not found:
        return None
    number = found[0 if mark else -1]
    sign = "-" if number[0].startswith("-") else ""
    return Decimal(sign + number[1].replace(",", "") + (number[2] or ""))


def spec_bench(data_dir: Path | None) -> Suite:
    """First turns of all categories, for speed and acceptance: nobody judges the answers."""
    found = rows(data_dir, "spec_bench/question.jsonl", {"question_id": int, "category": str, "turns": list})
    items = [_question(number, row) for number, row in enumerate(found, 1)]
    draw = partial(chosen, items, group=lambda item: str(item.facts["category"]))
    return Suite(name="spec_bench", items=draw, judge=lambda item, text: None)


def _question(number: int, row: Row) -> Item:
    if not row["turns"] or not isinstance(row["turns"][0], str):
        raise InvalidInput(f"spec_bench/question.jsonl, row {number} (--data-dir): turns has no text")
    return Item(
        task="spec_bench", key=str(row["question_id"]), max_tokens=256,
        prompt=({"role": "user", "content": row["turns"][0]},), facts={"category": row["category"]},
    )  # fmt: skip
