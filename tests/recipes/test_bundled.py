"""One command makes the bundled model: here in three steps and from few rows."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_layers import ROOT
from trimode.models.checkpoint import MARK, load_model
from trimode.training.recipe import read_recipe

RECIPE = ROOT / "recipes" / "bundled.toml"
SMALL = (
    "steps=1", "rows=128", "streams=1", "micro=1", "make.tasks.rows=40", "make.copies.rows=10", "make.holes.rows=20",
    "make.sums.rows=5", "make.orders.rows=5", "make.words.rows=5", "make.code.every=60", "tensorboard=false",
    "stage.joint.noise.block_sizes=[8]", "stage.more.noise.block_sizes=[8]", "data.max_tokens=48",
)  # fmt: skip


@pytest.mark.medium
def test_the_command_makes_tokens_data_and_every_stage_and_tells_what_it_went_without(tmp_path: Path) -> None:
    line = json.dumps({"question": "1+1?", "answer": "1+1 = <<1+1=2>>2\n#### 2"}) + "\n"
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "train.jsonl").write_text(line * 8, "utf-8")
    sha256 = hashlib.sha256((line * 8).encode()).hexdigest()
    changes = (*SMALL, f"out={tmp_path / 'run'}", f"make.gsm8k.sha256={sha256}")
    done = subprocess.run(
        [sys.executable, "-m", "trimode", "train", str(RECIPE), "--data-dir", str(tmp_path), "--skip-missing",
         "--device", "cpu", *(word for change in changes for word in ("--set", change))],
        capture_output=True, text=True, timeout=100, check=False,
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    final = tmp_path / "run" / "more" / "final"
    assert sum(weight.numel() for weight in load_model(final).parameters()) > 5e6
    data = json.loads((final / MARK).read_text("utf-8"))["data"]
    assert [told["stage"] for told in data] == ["ar", "joint", "more"]
    made = {entry["name"]: entry for entry in data[2]["made"]}
    assert (made["gsm8k"]["rows_made"], made["gsm8k"]["licence"]) == (8, "MIT")
    assert "mbpp.jsonl cannot be read" in made["mbpp"]["missing"]
    assert data[0]["made"] == json.loads((tmp_path / "run" / "ar" / "data.json").read_text("utf-8"))[0]["made"]


def test_every_make_is_named_by_a_stage_and_public_data_has_a_licence() -> None:
    recipe = read_recipe(RECIPE)
    named = {pattern for stage in recipe.stages for pattern in (*stage.data.train, *stage.data.heldout)}
    assert named == {f"make:{make.name}" for make in recipe.makes}
    assert {make.name for make in recipe.makes if "sha256" in make.fields} == {"gsm8k", "mbpp"}
    assert all(make.fields.get("licence") for make in recipe.makes if "sha256" in make.fields)


def test_the_learning_rate_of_every_stage_ends_at_nothing() -> None:
    stages = read_recipe(RECIPE).stages
    assert [(stage.name, stage.kind) for stage in stages] == [("ar", "ar"), ("joint", "joint"), ("more", "joint")]
    assert {(stage.final_share, stage.schedule) for stage in stages} == {(0.0, "wsd")}
