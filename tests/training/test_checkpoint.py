"""A resumed run is the run; an interrupted, failed or damaged save leaves the checkpoints there were."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from tests.models.checkpoints import refuses
from tests.training.saves import FACTS, fills, new, run, small_disk, whole
from trimode.errors import CheckpointError, InvalidInput, StorageError
from trimode.training import checkpoint, state
from trimode.training.checkpoint import FACTS as NAME
from trimode.training.checkpoint import FORMAT, Checkpoints, newest, read_facts, refuse_changes, steps

pytestmark = pytest.mark.medium

LOOPS = (sys.executable, "-m", "tests.training.saves")


def saved(folder: Path, *at: int, **options: Any) -> tuple[Checkpoints, Any]:
    """Checkpoints of an untrained model at these steps, and the model with its optimisers."""
    checkpoints, made = Checkpoints(folder, **options), new()
    for step in at:
        checkpoints.save(step, *made, FACTS)
    return checkpoints, made


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_five_and_five_steps_are_ten_steps_bit_by_bit(optimizer: str, tied: bool, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    model, optims = new(optimizer, tied=tied)
    run(model, optims, 0, 5)
    path = checkpoints.save(5, model, optims, FACTS)
    straight = run(model, optims, 5, 10)
    again, more = new(optimizer, seed=1, tied=tied)
    facts = checkpoints.load(path, again, more)
    assert run(again, more, facts["step"], 10) == straight
    for name, weight in whole(model).items():
        assert torch.equal(weight, whole(again)[name]), name


@pytest.mark.medium
def test_two_processes_go_on_bit_by_bit_after_their_own_save(pair: Path) -> None:
    got = torch.load(pair / "out.pt")
    for name, weight in got["straight"].items():
        assert torch.equal(weight, got["two to two"][name]), name


@pytest.mark.medium
def test_a_run_goes_on_whether_one_process_saved_or_two(pair: Path) -> None:
    expected, got = torch.load(pair / "expected.pt"), torch.load(pair / "out.pt")
    again, more = new(seed=1)
    facts = Checkpoints(pair / "two").load(pair / "two" / "step-00000005", again, more)
    assert facts["world"] == 2
    run(again, more, 5, 10)
    for name, weight in expected.items():
        for other in (got["straight"][name], got["one to two"][name], whole(again)[name]):
            torch.testing.assert_close(other, weight, rtol=0, atol=1e-5)


@pytest.mark.medium
def test_a_full_disk_of_one_process_is_one_sentence_for_all(pair: Path) -> None:
    sentences = {(pair / f"sentence {rank}").read_text() for rank in range(2)}
    assert len(sentences) == 1
    assert re.search("full: step 2 .* disk is full .* last complete .* step-00000001$", sentences.pop())
    assert json.loads((pair / "left").read_text()) == ["step-00000001"]
    assert names(pair / "full") == ["step-00000001", "step-00000003"]


@pytest.mark.parametrize("n_bytes", [10, 1000, 30_000])
def test_a_full_disk_names_the_folder_and_what_survives(n_bytes: int, tmp_path: Path) -> None:
    checkpoints, made = saved(tmp_path, 1)
    run(*made, 0, 1)
    with small_disk(n_bytes), refuses(StorageError, tmp_path, "step 2", "the disk is full", "step-00000001"):
        checkpoints.save(2, *made, FACTS)
    assert names(tmp_path) == ["step-00000001"]


@pytest.mark.parametrize("what", ["write_json", "settle"])
def test_a_disk_that_fills_at_the_end_leaves_no_folder(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    checkpoints = Checkpoints(tmp_path)
    monkeypatch.setattr(checkpoint, what, fail)
    with refuses(StorageError, tmp_path, "No space left on device", "no checkpoint there is complete"):
        checkpoints.save(2, *new(), FACTS)
    assert names(tmp_path) == []


@pytest.mark.medium
def test_a_save_killed_at_any_file_operation_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    done = subprocess.run([*LOOPS, "kill", str(tmp_path)], capture_output=True, text=True, timeout=110, check=True)
    outcomes = json.loads(done.stdout)
    assert len(outcomes) > 20
    assert {step for step, _ in outcomes} == {"step-00000001", "step-00000002"}
    assert all(is_whole for _, is_whole in outcomes)


def test_the_last_few_stay_and_every_so_many_for_ever(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2, 3, 4, 5, 6, 7, keep=2, every=3)
    assert [path.name for path in steps(tmp_path)] == [f"step-0000000{n}" for n in (3, 6, 7)]


def test_temporary_folders_of_interrupted_saves_go_at_the_next(tmp_path: Path) -> None:
    checkpoints, made = saved(tmp_path, 1)
    (tmp_path / ".step-00000002.tmp").mkdir()
    assert newest(tmp_path) == tmp_path / "step-00000001"
    checkpoints.save(3, *made, FACTS)
    assert names(tmp_path) == ["step-00000001", "step-00000003"]


DAMAGES = {
    "truncated": lambda path: os.truncate(path / "__0_0.distcp", 100),
    "shard-gone": lambda path: (path / "__0_0.distcp").unlink(),
    "metadata-gone": lambda path: (path / ".metadata").unlink(),
    "metadata-truncated": lambda path: os.truncate(path / ".metadata", 10),
    "facts-gone": lambda path: (path / NAME).unlink(),
    "facts-truncated": lambda path: os.truncate(path / NAME, 10),
    "facts-of-another-kind": lambda path: (path / NAME).write_text("[]"),
    "facts-without-files": lambda path: (path / NAME).write_text('{"format": 1}'),
    "empty": lambda path: [file.unlink() for file in path.iterdir()],
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_with_a_warning_and_replaced(damage: Any, tmp_path: Path) -> None:
    checkpoints, made = saved(tmp_path, 1, 2)
    damage(tmp_path / "step-00000002")
    with pytest.warns(UserWarning, match=f"{tmp_path}/step-00000002 is passed over"):
        assert checkpoints.latest() == tmp_path / "step-00000001"
    with refuses(CheckpointError, tmp_path / "step-00000002"):
        checkpoints.load(tmp_path / "step-00000002", *made)
    checkpoints.save(2, *made, FACTS)
    assert fills(tmp_path / "step-00000002", *made)
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def test_bytes_that_changed_without_a_trace_are_refused_when_read(tmp_path: Path) -> None:
    checkpoints, made = saved(tmp_path, 1)
    for name in (".metadata", "__0_0.distcp"):
        path = tmp_path / "step-00000001" / name
        path.write_bytes(b"\0" * path.stat().st_size)
        with refuses(CheckpointError, tmp_path / "step-00000001"):
            checkpoints.load(tmp_path / "step-00000001", *made)


def test_a_folder_without_checkpoints_has_no_latest(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none").latest() is None
    (tmp_path / "step-by-step").mkdir()
    assert Checkpoints(tmp_path).latest() is None


def test_a_newer_format_is_refused_and_never_passed_over(tmp_path: Path) -> None:
    checkpoints, made = saved(tmp_path, 1, 2)
    path = tmp_path / "step-00000002"
    facts = read_facts(path) | {"format": FORMAT + 1}
    (path / NAME).write_text(json.dumps(facts))
    for act in (checkpoints.latest, lambda: checkpoints.load(path, *made)):
        with refuses(CheckpointError, path, f"format {FORMAT + 1}", f"up to {FORMAT}"):
            act()


@pytest.mark.parametrize("change", [dict(n_layers=1), dict(hidden_size=32), dict(vocab_size=60), dict(qk_norm=True)])
def test_a_checkpoint_of_another_model_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    checkpoints, _ = saved(tmp_path, 1)
    with refuses(CheckpointError, tmp_path / "step-00000001"):
        checkpoints.load(tmp_path / "step-00000001", *new(**change))


def test_frozen_weights_are_neither_stored_nor_needed(tmp_path: Path) -> None:
    model, optims = new()
    run(model, optims, 0, 1)
    model.embedding.requires_grad_(False)
    optims = [torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])]
    run(model, optims, 1, 2)
    path = Checkpoints(tmp_path).save(2, model, optims, FACTS)
    assert "model/embedding" not in state.stored(path)
    again, _ = new(seed=1)
    again.embedding = torch.nn.Parameter(model.embedding.detach().clone(), requires_grad=False)
    more = [torch.optim.AdamW([p for p in again.parameters() if p.requires_grad])]
    Checkpoints(tmp_path).load(path, again, more)
    assert run(again, more, 2, 4) == run(model, optims, 2, 4)


def test_wrappers_around_layers_do_not_change_the_names(tmp_path: Path) -> None:
    _, made = saved(tmp_path, 1)
    wrapped, optims = new(seed=1)
    for index, layer in enumerate(wrapped.layers):
        wrapped.layers[index] = checkpoint_wrapper(layer)
    Checkpoints(tmp_path).load(tmp_path / "step-00000001", wrapped, optims)
    for one, other in zip(made[0].parameters(), wrapped.parameters(), strict=True):
        assert torch.equal(one, other)


def test_weights_alone_can_be_loaded_and_rates_stay_the_recipes(tmp_path: Path) -> None:
    model, optims = new()
    run(model, optims, 0, 1)
    path = Checkpoints(tmp_path).save(1, model, optims, FACTS)
    again, more = new(seed=1)
    Checkpoints(tmp_path).load(path, again)
    assert torch.equal(again.norm, model.norm)
    assert not more[0].state
    more[0].param_groups[0]["lr"] = 0.5
    Checkpoints(tmp_path).load(path, again, more)
    assert more[0].param_groups[0]["lr"] == 0.5
    assert len(more[0].state) == len(optims[0].state)


NOW: dict[str, Any] = {**FACTS, "kind": "joint", "optimizer": "adamw", "model": {"hidden_size": 24, "n_layers": 2}}


def test_what_did_not_change_is_not_refused() -> None:
    saved = json.loads(json.dumps(NOW)) | {"step": 5, "world": 2, "versions": {}, "note": "a"}
    refuse_changes(saved, NOW | {"note": "b"}, force=False)


CHANGES: list[dict[str, Any]] = [
    {"seed": 1}, {"data": "d2"}, {"block_sizes": (8, 16)}, {"rows": 24}, {"streams": 8}, {"kind": "sft"},
    {"optimizer": "muon"}, {"seed": 1, "data": "d2"},
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids="-".join)
def test_a_change_is_named_with_both_values_unless_forced(change: dict[str, Any]) -> None:
    both = [text for name, value in change.items() for text in (repr(json.loads(json.dumps(value))), name)]
    before = [repr(json.loads(json.dumps(NOW[name]))) for name in change]
    with refuses(InvalidInput, *both, *before, "--force"):
        refuse_changes(NOW, NOW | change, force=False)
    refuse_changes(NOW, NOW | change, force=True)


def test_another_geometry_is_named_field_by_field() -> None:
    with refuses(InvalidInput, "model.n_layers was 2 and is now 3"):
        refuse_changes(NOW, NOW | {"model": {"hidden_size": 24, "n_layers": 3}}, force=False)


def test_keep_is_at_least_one(tmp_path: Path) -> None:
    with refuses(InvalidInput, "keep is 0, allowed is at least 1"):
        Checkpoints(tmp_path, keep=0)
