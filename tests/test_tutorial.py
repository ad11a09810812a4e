"""docs/training.md keeps its word: its commands, one after the other, take a causal model to adapters. Few steps."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "training.md").read_text("utf-8")
(TUTORIAL,) = re.findall(r"```sh\n(.*?)```", TEXT, re.S)
COMMANDS = [line.split("  #")[0].split(" # ")[0].strip() for line in TUTORIAL.splitlines() if line.strip()]
SHORT = {
    "train": ("--set", "steps=3", "--set", "save_every=1"),
    "toy_base": ("--rows", "200"),
    "toy_report": ("--items", "1"),
}
WRITTEN = ("converted", "mean", "merged", "runs/ar/final", "runs/joint/final", "runs/sft/final")


def words(command: str, folder: Path) -> list[str]:
    """The command with this interpreter, in another folder and with a few steps."""
    name, *rest = shlex.split(command)
    rest = [re.sub(r"(^|=)toy(?=/|$)", rf"\g<1>{folder}", word) for word in rest]
    module = ["-m", name, *rest] if name == "trimode" else rest
    return [
        sys.executable,
        *module,
        *next((extra for key, extra in SHORT.items() if any(key in w for w in module)), ()),
    ]


@pytest.mark.slow
def test_the_tutorial_runs_from_a_toy_base_to_an_exported_model_with_adapters(tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    for command in COMMANDS:
        done = subprocess.run(
            words(command, folder), capture_output=True, text=True, timeout=300, check=False, cwd=ROOT
        )
        assert done.returncode == 0, (command, done.stderr)
    for name in WRITTEN:
        assert (folder / name / "model.safetensors").exists(), name
    for name in ("lora", "drafter"):
        assert (folder / "runs" / name / "final" / "adapter_model.safetensors").exists()
    assert (folder / "curves.png").exists()
