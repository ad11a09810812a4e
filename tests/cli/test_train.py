"""`trimode train` as a user meets it: files in, a checkpoint out, signals heeded, one sentence for bad input."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.runs import RECIPE, metrics, write_run

ADAPTERS = (
    RECIPE
    + """
[[stage]]
name = "lora"
kind = "lora"
[[stage]]
name = "drafter"
kind = "drafter"
"""
)
TRAIN = (sys.executable, "-m", "trimode", "train")


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {"XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}


def train(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TRAIN, str(path), *arguments], capture_output=True, text=True, timeout=100, check=False,
        env=environment(path.parent),
    )  # fmt: skip


@pytest.mark.medium
def test_a_recipe_becomes_a_checkpoint_that_writes_text(tmp_path: Path) -> None:
    done = train(write_run(tmp_path), "--set", "steps=2")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "second 2/2" in done.stderr
    final = tmp_path / "run" / "second" / "final"
    command = [sys.executable, "-m", "trimode", "generate", "1 and", "--model", str(final), "--max-tokens", "3"]
    asked = subprocess.run(command, capture_output=True, timeout=100, check=False)
    assert asked.returncode == 0, asked.stderr


@pytest.mark.medium
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_run_with_a_checkpoint_to_go_on_from(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    path = write_run(tmp_path)
    command = [*TRAIN, str(path), "--set", "steps=100000", "--set", "save_every=100000", "--set", "log_every=1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(tmp_path)) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if line.startswith("first 3/"):
                running.send_signal(number)
                break
        rest = running.stderr.read()
    assert running.returncode == code, rest
    assert "stopped as asked" in rest
    saved = [path.name for path in (tmp_path / "run" / "first" / "checkpoints").iterdir()]
    assert saved == [f"step-{int(metrics(tmp_path / 'run' / 'first')[-1]['step']):08d}"]


@pytest.mark.medium
def test_the_same_command_under_torchrun_trains_the_same(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = write_run(tmp_path / "one", ADAPTERS), write_run(tmp_path / "two", ADAPTERS)
    assert train(one, "--device", "cpu").returncode == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "trimode",
                "train", str(two), "--device", "cpu"]  # fmt: skip
    done = subprocess.run(torchrun, capture_output=True, text=True, timeout=100, check=False, env=environment(tmp_path))
    assert done.returncode == 0, done.stderr
    for stage in ("first", "second", "lora", "drafter"):
        losses = [[line["loss"] for line in metrics(tmp_path / name / "run" / stage)] for name in ("one", "two")]
        assert losses[1] == pytest.approx(losses[0], abs=1e-5)


@pytest.mark.medium
def test_a_dry_run_prints_what_every_stage_would_take_and_writes_nothing(tmp_path: Path) -> None:
    done = train(write_run(tmp_path), "--plan", "gpus=2")
    assert done.returncode == 0, done.stderr
    for fact in ("first (ar)", "second (joint)", "parameters", "tokens", "memory per GPU", "2 x h100", "not measured"):
        assert fact in done.stdout
    assert not (tmp_path / "run").exists()


@pytest.mark.medium
def test_a_dry_run_of_an_adapter_has_no_moments_for_the_frozen_model(tmp_path: Path) -> None:
    path = write_run(tmp_path, ADAPTERS)
    config = tmp_path / "config.json"
    wide = json.loads(config.read_text("utf-8")) | {"hidden_size": 4096, "intermediate_size": 8192}
    config.write_text(json.dumps(wide), "utf-8")
    done = train(path, "--dry-run", "--set", "lora.rank=2")
    assert done.returncode == 0, done.stderr
    assert "1 x this machine" in done.stdout
    units = {"MB": 1e6, "GB": 1e9}
    lines = [line.split() for line in done.stdout.splitlines() if line.strip().startswith("moments")]
    ar, joint, lora, drafter = (float(number) * units[unit] for _, number, unit in lines)
    assert ar == joint > 1e9
    assert max(lora, drafter) < 1e7


@pytest.mark.medium
def test_bad_input_is_one_sentence_and_code_2(tmp_path: Path) -> None:
    done = train(write_run(tmp_path), "--set", "stepz=2")
    assert done.returncode == 2
    assert done.stderr == "trimode: stage 'first' has an unknown key 'stepz': did you mean 'steps'?\n"


@pytest.mark.medium
def test_strict_stops_at_a_bad_row_that_else_is_left_out(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    with (tmp_path / "texts.jsonl").open("a") as file:
        file.write("{not json\n")
    done = train(path, "--strict")
    assert done.returncode == 2
    assert "texts.jsonl:13" in done.stderr
