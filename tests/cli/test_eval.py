"""`trimode eval` as a user meets it: a table on stdout, talk on stderr, a killed run that goes on."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.adapters import random_adapter
from tests.evaluation.stand_ins import letters, random_llm
from trimode.api import LLM
from trimode.cli import eval as verb
from trimode.cli import main
from trimode.errors import InvalidInput
from trimode.evaluation import runner
from trimode.evaluation.plan import Plan
from trimode.evaluation.records import GENERATIONS

pytestmark = pytest.mark.medium

SMALL = ("--tasks", "csv", "--modes", "ar,LinearSpec:placement=linear", "--max-tokens", "24", "--limit", "2")
KILLED = """
import os, signal, torch
torch.set_num_threads(1)  # as in this process, which goes on
from trimode.cli import main
from trimode.evaluation.records import Records
whole = Records.append
def torn(self, record):
    if len(self.there) == 2:
        self._file.write(b'{"mode": "ar", "ta')
        self._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    whole(self, record)
Records.append = torn
main()
"""


def inside(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """The same entry point without a new process."""
    monkeypatch.setattr(sys, "argv", ["trimode", "eval", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


@pytest.mark.medium
def test_an_evaluation_killed_within_a_line_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*SMALL, "--no-likelihood", "--out", str(tmp_path)]
    killed = subprocess.run([sys.executable, "-c", KILLED, "eval", *arguments], timeout=100, check=False)
    assert killed.returncode == -signal.SIGKILL
    path = tmp_path / GENERATIONS
    there, torn = path.read_bytes().rsplit(b"\n", 1)
    assert there.count(b"\n") == 1
    assert torn == b'{"mode": "ar", "ta'
    assert inside(arguments, monkeypatch) == 0
    said = capsys.readouterr()
    assert "torn" in said.err
    assert "2 of 4 answers are there from before" in said.err
    assert path.read_bytes().startswith(there)
    rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert len({(row["mode"], row["task"], row["key"]) for row in rows}) == len(rows) == 4
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert report["about"]["command"].startswith("trimode eval --tasks csv")
    assert {row["setting"] for row in report["rows"]} == {"ar", "self_speculation:placement=linear"}
    for part in ("csv", "tokens/forward", "self_speculation:placement=linear"):
        assert part in said.out


@pytest.mark.medium
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--tasks", "yodel"], "task is 'yodel', allowed are procedural, "),
        (["--modes", "telepathy"], "mode is 'telepathy', allowed are ar, "),
        (["--tasks", "json", "--limit", "0"], "it needs a limit"),
        (["--nelbo-blocks", "4,x"], "--nelbo-blocks is '4,x'"),
        (["--repeats", "0"], "repeats is 0, allowed is at least 1"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    assert inside([*arguments, "--out", str(tmp_path / "out")], monkeypatch) == 2
    said = capsys.readouterr().err
    assert said.startswith("trimode: ")
    assert sentence in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_interrupt_keeps_the_answers_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = runner.ask

    def third_is_interrupted(*given: Any) -> Any:
        if (tmp_path / GENERATIONS).read_bytes().count(b"\n") == 2:
            raise KeyboardInterrupt
        return asked(*given)

    monkeypatch.setattr(runner, "ask", third_is_interrupted)
    monkeypatch.setattr(runner, "suites", lambda *_, **__: [letters()])
    with pytest.raises(typer.Exit) as stopped:
        verb.run(random_llm(), Plan(likelihood=False), tmp_path)
    assert stopped.value.exit_code == 130
    assert "keeps the answers so far, the same command goes on" in capsys.readouterr().err
    assert (tmp_path / GENERATIONS).read_bytes().count(b"\n") == 2


def test_adapter_and_drafter_are_loaded_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, plans = random_llm(), list[Plan]()
    random_adapter(base.model.config, 1).save(tmp_path / "law", "base")
    random_adapter(base.model.config, 2, targets=("o_proj",), draft=True).save(tmp_path / "swift", "base")
    llm = LLM(base.model, base.tokenizer)
    monkeypatch.setattr("trimode.api.load", lambda *_, **__: llm)
    monkeypatch.setattr(verb, "run", lambda llm, plan, out: plans.append(plan))
    monkeypatch.setattr(verb, "show", lambda report: None)
    verb.evaluate(adapter=str(tmp_path / "law"), drafter=str(tmp_path / "swift"))
    assert [plan.adapter for plan in plans] == list(llm.adapters) == ["law"]
    assert llm.drafter is not None and llm.drafter.name == "swift"


def test_modes_of_several_flags_get_our_words() -> None:
    assert verb.canonical(["AR,fastdiffuser:block_size=4", "linear-spec"]) == (
        "ar", "diffusion:block_size=4", "self_speculation"
    )  # fmt: skip


def test_block_sizes_are_whole_numbers() -> None:
    assert verb.whole_numbers("4, 8") == (4, 8)
    assert verb.whole_numbers(None) == ()
    with pytest.raises(InvalidInput, match="whole numbers"):
        verb.whole_numbers("4.5")
