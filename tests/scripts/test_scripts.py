"""The benchmark scripts run from a checkout, with the smallest settings, and write what they print."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.medium


def results(out: Path, *command: str) -> Any:
    """The JSON a script writes next to its Markdown."""
    words = [sys.executable, *command, "--out", str(out)]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=110, check=False, cwd=ROOT, env=one_thread)
    assert done.returncode == 0, done.stderr
    assert out.read_text("utf-8") in done.stdout
    return json.loads(out.with_suffix(".json").read_text("utf-8"))


def test_modes_are_compared_on_the_prompts_of_a_file(tmp_path: Path) -> None:
    turns = ["Sort: 3, 1, 2", "Why?"]
    long = "words and " * 3000
    lines = [{"question_id": 1, "turns": turns}, {"question_id": 2, "turns": [long]}]
    (tmp_path / "question.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n", "utf-8")
    found = results(
        tmp_path / "modes.md", "scripts/bench_modes.py", "--prompts", "0", "--repeats", "2", "--max-tokens", "6",
        "--spec-bench", str(tmp_path / "question.jsonl"), "--only", "self_speculation", "transformers",
    )  # fmt: skip
    assert "2 first turns of Spec-Bench, 1 of them cut" in found["setting"]
    for name, groups in found["systems"].items():
        assert groups["all"]["same_as_ar"] == groups["all"]["prompts"] == 2, name
    assert {"ar [float32, torch]", "self_speculation [float32, torch]"} < set(found["systems"])
    assert {"transformers [float32]", "transformers prompt lookup [float32]"} < set(found["systems"])
    assert found["per_prompt"]["self_speculation [float32, torch]"]["baseline"] == "ar [float32, torch]"
    runs = found["runs"]["transformers [float32]"]["spec_bench 1"]
    assert [len(run["tokens"]) for run in runs] == [run["forwards"] for run in runs]


def test_forwards_are_timed_by_width(tmp_path: Path) -> None:
    found = results(
        tmp_path / "forward.md", "scripts/bench_forward.py", "--sizes", "tiny", "--widths", "1", "4", "--repeats", "2",
        "--past", "16", "--dtype", "float32", "--backend", "torch",
    )  # fmt: skip
    assert [row["width"] for row in found["rows"]] == [1, 4]
    for row in found["rows"]:
        parts = sum(row[part]["low"] for part in ("network", "head", "rest"))
        assert 0 < parts <= row["total"]["high"]
        assert row["floor_ms"] > 0
    assert found["rows"][0]["cost"] == 1.0


def test_training_steps_are_timed_and_weighed(tmp_path: Path) -> None:
    found = results(
        tmp_path / "training.md", "scripts/bench_training.py", "--length", "40", "--block", "8", "--repeats", "2",
        "--size", "tiny", "--layers", "1", "--dtype", "float32", "--variants", "split", "naive",
    )  # fmt: skip
    assert [row["variant"] for row in found["rows"]] == ["split", "naive"]
    for row in found["rows"]:
        assert row["bytes"]["peak"] >= row["bytes"]["held"] > 0
        assert row["of_peak"] > 0
        assert row["tokens_per_second"]["low"] <= row["tokens_per_second"]["high"]
    assert found["rows"][1]["speed_ratio"]["middle"] == found["rows"][1]["bytes_ratio"] == 1.0
