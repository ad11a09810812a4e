"""Sets whose answers are programs, executed in the sandbox: HumanEval, MBPP, HumanEval-Infilling. Runs no model.

HumanEval: arXiv 2107.03374. MBPP: 2108.07732, with its few-shot prompt. HumanEval-Infilling: 2207.14255.
"""

import io
import re
import tokenize
from functools import partial
from pathlib import Path

from trimode.errors import InvalidInput
from trimode.evaluation import sandbox
from trimode.evaluation.corpora.published import mbpp_question
from trimode.evaluation.rows import Row, chosen, rows
from trimode.evaluation.suites import Item, Suite

HUMANEVAL_REQUEST = "Complete this Python function. Answer with the whole function in one block of code."
SHOTS = (2, 3, 4)  # task ids of MBPP's examples, of the ten that are kept for it
TEST_IDS = range(11, 511)
DONE = "[DONE]"
INFILLING = {
    "single_line": "HumanEval-SingleLineInfilling.jsonl.gz",
    "random_span": "HumanEval-RandomSpanInfillingLight.jsonl.gz",
}
PROBLEM = {"task_id": str, "prompt": str, "entry_point": str, "canonical_solution": str, "test": str}
_BLOCK = re.compile(r"```[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)


def humaneval(data_dir: Path | None, chat: bool = False, allow_unsandboxed: bool = False) -> Suite:
    """A function is completed from its signature and docstring; one answer each (pass@1)."""
    sandbox.require(allow_unsandboxed)
    found = rows(data_dir, "humaneval/HumanEval.jsonl.gz", PROBLEM)
    items = [
        Item(
            task="humaneval", key=row["task_id"], max_tokens=512, reference=None if chat else row["canonical_solution"],
            prompt=({"role": "user", "content": f"{HUMANEVAL_REQUEST}\n{_fenced(row['prompt'])}"},)
            if chat else row["prompt"],
            stop=() if chat else ("\ndef ", "\nclass ", "\nif __name__", "\nprint("),
            facts={"program": row["prompt"], "entry_point": row["entry_point"], "checks": _checks(row)},
        )
        for row in found
    ]  # fmt: skip

    def judge(item: Item, text: str) -> bool:
        build = from_block if chat else first_function
        program = build(item.facts["program"], text, item.facts["entry_point"])
        return _passes(program, item.facts["checks"], allow_unsandboxed)

    return Suite(name="humaneval", items=partial(chosen, items), judge=judge)


def mbpp(data_dir: Path | None, chat: bool = False, allow_unsandboxed: bool = False) -> Suite:
    """A program is written from a sentence and its tests, after three solved ones; in a chat as recipes train it."""
    sandbox.require(allow_unsandboxed)
    kinds = {"task_id": int, "text": str, "code": str, "test_list": list, "test_setup_code": str}
    found = {row["task_id"]: row for row in rows(data_dir, "mbpp/mbpp.jsonl", kinds)}
    if missing := [number for number in SHOTS if number not in found]:
        raise InvalidInput(f"mbpp/mbpp.jsonl (--data-dir) lacks task_id {missing[0]}, an example of the prompt")
    before = "".join(f"{_task(found[number])}{_clean(found[number]['code'])}\n{DONE}\n\n" for number in SHOTS)
    items = [_program(row, before, chat) for number, row in found.items() if number in TEST_IDS]

    def judge(item: Item, text: str) -> bool:
        program = block(text.split(DONE, maxsplit=1)[0])
        return _passes(program, item.facts["checks"], allow_unsandboxed)

    return Suite(name="mbpp", items=partial(chosen, items), judge=judge)


def _program(row: Row, before: str, chat: bool) -> Item:
    checks = "\n".join([_clean(row["test_setup_code"]), *map(str, row["test_list"])])
    question = mbpp_question(row["text"], [str(test) for test in row["test_list"]])
    return Item(
        task="mbpp", key=str(row["task_id"]), max_tokens=512, reference=None if chat else _clean(row["code"]) + "\n",
        prompt=({"role": "user", "content": question},) if chat else before + _task(row),
        stop=() if chat else (DONE,), facts={"checks": checks},
    )  # fmt: skip


def _task(row: Row) -> str:
    tests = "\n".join(map(str, row["test_list"]))
    return (
        f"You are an expert Python programmer, and here is your task: {row['text']} "
        f"Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"
    )


def humaneval_infilling(data_dir: Path | None, allow_unsandboxed: bool = False) -> Suite:
    """A hole in a function is filled: one line of it, or a random span. The two sets keep apart as two tasks.

    The prompt of an item is the text before the hole, `facts["suffix"]` that behind it: infilling.py lays them out.
    """
    sandbox.require(allow_unsandboxed)
    items = []
    for kind, file in INFILLING.items():
        for row in rows(data_dir, f"humaneval_infilling/{file}", {**PROBLEM, "suffix": str}):
            items.append(_hole(row, kind))

    def judge(item: Item, text: str) -> bool:
        # A line ends where it ends; a span has no end but the one the model gives it.
        middle = text.split("\n", maxsplit=1)[0] + "\n" if item.facts["set"] == "single_line" else text
        return _passes(item.facts["prefix"] + middle + item.facts["suffix"], item.facts["checks"], allow_unsandboxed)

    draw = partial(chosen, items, group=lambda item: str(item.facts["set"]))
    return Suite(name="humaneval_infilling", items=draw, judge=judge)


def _hole(row: Row, kind: str) -> Item:
    is_line = kind == "single_line"
    return Item(
        task=f"humaneval_infilling:{kind}", key=row["task_id"], prompt=row["prompt"],
        max_tokens=128 if is_line else 256, stop=("\n",) if is_line else (), reference=row["canonical_solution"],
        facts={"set": kind, "prefix": row["prompt"], "suffix": row["suffix"], "checks": _checks(row)},
    )  # fmt: skip


def first_function(prompt: str, text: str, entry_point: str = "") -> str:
    """Prompt and continuation up to the first statement that begins at the margin: what follows is not the function."""
    source = prompt + text
    begin = (prompt.count("\n") + 1, len(prompt.rpartition("\n")[2]))
    is_start = True  # of a statement
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type in (tokenize.COMMENT, tokenize.NL):
                continue
            is_word = token.type not in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
            if is_start and is_word and token.start[1] == 0 and token.start >= begin:
                return "\n".join([*source.split("\n")[: token.start[0] - 1], ""])
            is_start = not is_word
    except (tokenize.TokenError, SyntaxError, ValueError):  # what cannot be read is cut nowhere, and will not run
        pass
    return source


def from_block(prompt: str, text: str, entry_point: str) -> str:
    """What stands before the function in the prompt, and the function of the answer; or prompt and answer, joined."""
    code = block(text)
    if f"def {entry_point}(" not in code:
        return first_function(prompt, code)
    return prompt[: prompt.rfind(f"def {entry_point}(")] + "\n" + code


def block(text: str) -> str:
    """The first fenced block of an answer, or the answer as it is."""
    found = _BLOCK.search(text)
    return found[1] if found else text


def _fenced(code: str) -> str:
    return f"```python\n{code}```"


def _clean(code: str) -> str:
    return code.replace("\r\n", "\n")


def _checks(row: Row) -> str:
    return f"{row['test']}\ncheck({row['entry_point']})\n"


def _passes(program: str, checks: str, allow_unsandboxed: bool) -> bool:
    return sandbox.run(program, checks, allow_unsandboxed=allow_unsandboxed).outcome == "passed"
