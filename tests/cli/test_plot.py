"""`trimode plot` as a user meets it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.test_plot import PNG, some_run


def trimode_plot(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trimode", "plot", *arguments]
    root = str(Path(__file__).resolve().parents[2])
    return subprocess.run(
        command, capture_output=True, text=True, timeout=100, check=False, cwd=folder, env={"PYTHONPATH": root}
    )


@pytest.mark.medium
def test_the_picture_is_written_and_named_on_stdout(tmp_path: Path) -> None:
    some_run(tmp_path / "run")
    with (tmp_path / "run" / "warm" / "metrics.jsonl").open("a") as file:
        file.write("{")
    done = trimode_plot("run", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "curves.png\n"
    assert "trimode: warm/metrics.jsonl: skipped 1 damaged line: 4" in done.stderr
    assert (tmp_path / "curves.png").read_bytes().startswith(PNG)


@pytest.mark.medium
def test_a_run_without_metrics_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    done = trimode_plot(".", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no metrics" in done.stderr
