"""The README keeps its word: its example and its commands run, and it fits two screens."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models.bases import write_base

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.S)
COMMANDS = [
    line.split("  #")[0].strip()
    for kind, block in BLOCKS
    if kind == "sh"
    for line in block.splitlines()
    if line.strip()
]

RECIPE = """
out = "runs"
model = { source = "base" }
data = { train = ["texts.jsonl"] }
stage = [{ name = "ar", kind = "ar", steps = 1, rows = 16, streams = 1 }]
"""


@pytest.mark.medium
def test_the_python_example_runs() -> None:
    (code,) = [block for kind, block in BLOCKS if kind == "python"]
    assert len(code.strip().splitlines()) <= 6
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.medium
@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("trimode ")])
def test_a_trimode_command_runs(command: str, tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Sort: 3, 1, 2\\n"}\n')
    write_base(tmp_path / "base")
    (tmp_path / "texts.jsonl").write_text('{"text": "w10 w11 w12 w13"}\n')
    (tmp_path / "recipe.toml").write_text(RECIPE)
    words = [sys.executable, "-m", *shlex.split(command)]
    done = subprocess.run(words, capture_output=True, timeout=100, check=False, cwd=tmp_path, input=b"hello\n")
    assert done.returncode == 0, done.stderr


def test_every_other_command_is_one_that_scripts_fresh_clone_or_check_prove() -> None:
    others = {command.split(" PROMPT")[0] for command in COMMANDS if not command.startswith("trimode ")}
    assert others == {"make run", "make test"}


def test_it_fits_two_screens() -> None:
    assert len(README.splitlines()) <= 100
