"""Sets whose answers are programs: what is cut from an answer, what is executed, and that right answers pass."""

import gzip
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer as Backend

from tests.fakes import byte_tokenizer
from trimode.errors import InvalidInput
from trimode.evaluation import sandbox
from trimode.evaluation.asking import asked
from trimode.evaluation.coding import (
    SHOTS,
    TEST_IDS,
    block,
    first_function,
    from_block,
    humaneval,
    humaneval_infilling,
    mbpp,
)  # fmt: skip
from trimode.evaluation.corpora.published import MBPP_TRAIN, Mbpp
from trimode.evaluation.infilling import laid_out, layout
from trimode.evaluation.published import published
from trimode.evaluation.suites import Suite
from trimode.tokenizer import FIM, Tokenizer
from trimode.training.documents import Document, Special

pytestmark = pytest.mark.medium

DATA = Path(os.environ.get("TRIMODE_DATA", Path(__file__).parents[3] / "shared" / "data"))
PROMPT = 'def add(a, b):\n    """The sum."""\n'
BODY = "    c = a + b\n    return c\n"
PROBLEM = {
    "task_id": "T/0", "prompt": PROMPT, "entry_point": "add", "canonical_solution": BODY,
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(-1, 1) == 0\n",
}  # fmt: skip
HOLES = {
    "SingleLineInfilling": {"prompt": PROMPT, "canonical_solution": "    c = a + b\n", "suffix": "    return c\n"},
    "RandomSpanInfillingLight": {
        "prompt": PROMPT + "    c = a", "canonical_solution": " + b", "suffix": "\n    return c\n",
    },
}  # fmt: skip


def solved(number: int) -> dict[str, Any]:
    tests = [f"assert f_{number}(1) == {number + 1}"]
    return {
        "task_id": number, "text": f"Write a function that adds {number}.", "test_list": tests, "test_setup_code": "",
        "code": f"def f_{number}(x):\r\n    return x + {number}", "challenge_test_list": [],
    }  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    files = {
        "humaneval/HumanEval.jsonl.gz": [PROBLEM],
        "mbpp/mbpp.jsonl": [solved(number) for number in (2, 3, 4, 10, 11, 510, 511)],
        **{f"humaneval_infilling/HumanEval-{kind}.jsonl.gz": [PROBLEM | row | {"task_id": kind}]
           for kind, row in HOLES.items()},
    }  # fmt: skip
    for name, found in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        lines = "".join(json.dumps(row) + "\n" for row in found).encode()
        (tmp_path / name).write_bytes(gzip.compress(lines) if name.endswith("gz") else lines)
    return tmp_path


def marked_tokenizer() -> Tokenizer:
    """The byte tokenizer with the markers of infilling."""
    backend = Backend.from_str(byte_tokenizer().backend.to_str())
    backend.add_special_tokens(list(FIM))
    return Tokenizer(backend)


def judged(suite: Suite, texts: list[str], index: int = 0) -> list[bool | None]:
    return [suite.judge(suite.items(None, 0)[index], text) for text in texts]


# Cutting


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (BODY, BODY),
        (BODY + "\nprint(add(1, 2))\n", BODY + "\n"),
        (BODY + "\n\n@cache\ndef other(): pass", BODY + "\n\n"),
        (BODY + "assert add(1, 2) == 3", BODY),
        ("    x = (1,\n2)\n# aside\n    return x\nx = 3\n", "    x = (1,\n2)\n# aside\n    return x\n"),
        ("    x = [ # aside\n1\n]\n    return x\n", "    x = [ # aside\n1\n]\n    return x\n"),
        ('    x = """\nat the margin\n"""\n    return x\n1\n', '    x = """\nat the margin\n"""\n    return x\n'),
        ("return 3\n", ""),
        ("", ""),
        ("    x = '\n", "    x = '\n"),
        ("    if x:\n  y\n", "    if x:\n  y\n"),
        ("    x = \x00\n", "    x = \x00\n"),
    ],
)
def test_a_function_ends_before_the_first_statement_at_the_margin(text: str, kept: str) -> None:
    assert first_function(PROMPT, text) == PROMPT + kept


def test_a_prompt_may_end_within_a_line() -> None:
    assert first_function("def f(): ", "return 3\nf()") == "def f(): return 3\n"


def test_of_a_chat_answer_the_first_block_counts() -> None:
    whole = f"{PROMPT}{BODY}"
    assert block(f"Sure:\n```python\n{whole}```\nand\n```\nx\n```") == whole
    assert block(f"```\n{whole}") == block(whole) == whole
    assert from_block("import math\n" + PROMPT, f"```python\n{whole}```", "add") == "import math\n\n" + whole
    assert from_block(PROMPT, f"```python\n{BODY}```", "add") == PROMPT + BODY


# Judging


def test_humaneval_completes_prompts_and_executes_them(data: Path) -> None:
    suite = humaneval(data, allow_unsandboxed=True)
    (item,) = suite.items(None, 0)
    assert (item.key, item.prompt, item.reference) == ("T/0", PROMPT, BODY)
    texts = [BODY, BODY + "\nx = 1/0\n", "    return a\n", "    return a +", "", "    import sys; sys.exit()\n"]
    assert judged(suite, texts) == [True, True, False, False, False, False]
    chat = humaneval(data, chat=True, allow_unsandboxed=True)
    assert judged(chat, [f"Here:\n```python\n{PROMPT}{BODY}```", "I cannot."]) == [True, False]


def test_mbpp_shows_three_solved_tasks_and_asks_the_test_split(data: Path) -> None:
    suite = mbpp(data, allow_unsandboxed=True)
    items = suite.items(None, 0)
    assert [item.key for item in items] == ["11", "510"]
    assert isinstance(items[0].prompt, str) and "\r" not in items[0].prompt
    assert items[0].prompt.count("[DONE]\n\n") == 3 and items[0].prompt.endswith("== 12\n[BEGIN]\n")
    right = items[0].reference or ""
    assert judged(suite, [right, right + "[DONE]\n1/0", f"```\n{right}```", "def f_11(x): return x"]) == [
        True, True, True, False,
    ]  # fmt: skip
    (item,) = mbpp(data, chat=True, allow_unsandboxed=True).items(1, 0)
    trained = Mbpp(path="", sha256="", licence="").row(solved(int(item.key)) | {"task_id": 601})
    assert trained is not None and list(item.prompt) == trained["messages"][:1]


def test_what_is_asked_of_mbpp_is_never_trained() -> None:
    assert not set(MBPP_TRAIN) & {*TEST_IDS, *SHOTS}


def test_mbpp_without_its_examples_is_refused(data: Path) -> None:
    (data / "mbpp/mbpp.jsonl").write_text(json.dumps(solved(11)) + "\n", "utf-8")
    with pytest.raises(InvalidInput, match="lacks task_id 2"):
        mbpp(data, allow_unsandboxed=True)


def test_infilling_sets_stay_apart_and_a_line_ends_where_it_ends(data: Path) -> None:
    suite = humaneval_infilling(data, allow_unsandboxed=True)
    line, span = suite.items(None, 0)
    assert [line.task, span.task] == ["humaneval_infilling:single_line", "humaneval_infilling:random_span"]
    assert judged(suite, ["    c = a + b", "    c = b + a\n1/0", "    c = a"]) == [True, True, False]
    assert judged(suite, [" + b", " + b\n1/0", ""], 1) == [True, False, False]


# Layout


def test_a_hole_is_laid_out_as_training_does(data: Path) -> None:
    item = humaneval_infilling(data, allow_unsandboxed=True).items(None, 0)[1]
    tokenizer = byte_tokenizer()
    marked = marked_tokenizer()
    assert layout(tokenizer) == "prefix_only" and layout(marked) == "suffix_first"
    assert laid_out(tokenizer, item) == tuple(tokenizer.encode(item.facts["prefix"]))
    prefix, middle, suffix = (marked.encode(text) for text in (item.facts["prefix"], " + b", item.facts["suffix"]))
    text = Document.text((*prefix, *middle, *suffix))
    special = Special(mask_token_id=0, fim=marked.fim)
    whole = text.suffix_first(len(prefix), len(prefix) + len(middle), special)
    prompt = laid_out(marked, item)
    assert prompt == whole.tokens[: whole.answers[0][0]]
    assert marked.checked(prompt) == list(prompt)
    llm: Any = SimpleNamespace(tokenizer=marked)
    assert asked(llm, humaneval_infilling(data, allow_unsandboxed=True), item, chat=False).tokens == prompt


# Without what they need


def test_programs_are_refused_where_there_is_no_sandbox(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "reason_against", lambda: "it is a test")
    for name in ("humaneval", "mbpp", "humaneval_infilling"):
        with pytest.raises(InvalidInput, match="--allow-unsandboxed"):
            published(name, data)
        assert published(name, data, allow_unsandboxed=True).name == name


@pytest.mark.medium
@pytest.mark.parametrize(
    ("name", "n"),
    [("gsm8k", 660), ("humaneval", 164), ("mbpp", 500), ("humaneval_infilling", 1033 + 164), ("spec_bench", 480)],
)
def test_the_published_files_are_read_whole_and_right_answers_pass(name: str, n: int) -> None:
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is absent: the published sets are read from there, or from TRIMODE_DATA")
    suite = published(name, DATA, allow_unsandboxed=True)
    assert len(suite.items(None, 0)) == n
    for item in suite.items(2, 0):
        assert item.reference is None or suite.judge(item, item.reference)
