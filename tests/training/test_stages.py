"""A recipe's stages run one after the other, go on where they were stopped, and leave checkpoints that serve."""

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.runs import RECIPE, metrics, write_run
from tests.training.stand_ins import ALONE
from trimode.errors import InvalidInput, TrimodeError
from trimode.models.adapters import Adapter
from trimode.models.checkpoint import load_model, read_config
from trimode.training import stages
from trimode.training.interrupts import Interrupts
from trimode.training.parallel import World
from trimode.training.recipe import read_recipe
from trimode.training.stages import run

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_model(folder, "float32", "cpu").named_parameters())


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.medium
def test_every_stage_starts_from_the_weights_the_one_before_has_left(tmp_path: Path) -> None:
    recipe = read_recipe(write_run(tmp_path), ("stage.second.learning_rate=0",))
    assert run(recipe, ALONE)
    first, second = tmp_path / "run" / "first", tmp_path / "run" / "second"
    assert equal(weights(first / "final"), weights(second / "final"))
    assert sorted(path.name for path in first.iterdir()) == [
        "base", "checkpoints", "final", "metrics.jsonl", "recipe.toml", "tensorboard",
    ]  # fmt: skip
    assert (first / "final" / "tokenizer.json").exists()
    assert "diffusion" not in metrics(first)[0]
    assert [line["step"] for line in metrics(second) if "heldout_diffusion" in line] == [2, 4]


def test_a_finished_run_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = read_recipe(write_run(tmp_path))
    assert run(recipe, ALONE)
    monkeypatch.setattr(stages, "train", lambda *given: pytest.fail("trained again"))
    assert run(recipe, ALONE)


def stopping_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Interrupts:
    """A signal that comes in that step of the second stage."""
    seen, log = Interrupts(), stages.Metrics.log

    def note(self: Any, line: Any) -> None:
        log(self, line)
        if self.name == "second" and line["step"] == step - 1:
            seen.signal = signal.SIGTERM

    monkeypatch.setattr(stages.Metrics, "log", note)
    return seen


@pytest.mark.medium
def test_a_stopped_run_gone_on_with_is_as_never_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("whole", "halves"):
        (tmp_path / name).mkdir()
        write_run(tmp_path / name)
    whole = read_recipe(tmp_path / "whole" / "recipe.toml", ("steps=5",))
    halves = read_recipe(tmp_path / "halves" / "recipe.toml", ("steps=5",))
    assert run(whole, ALONE)
    with monkeypatch.context() as patch:
        assert not run(halves, ALONE, stopping_at(3, patch))
    assert not (halves.out / "second" / "final").exists()
    assert sorted(path.name for path in (halves.out / "second" / "checkpoints").iterdir())[-1] == "step-00000003"
    assert run(halves, ALONE)
    assert equal(weights(whole.out / "second" / "final"), weights(halves.out / "second" / "final"))
    clockless = [[{k: v for k, v in line.items() if "second" not in k} for line in metrics(made.out / "second")]
                 for made in (whole, halves)]  # fmt: skip
    assert clockless[0] == clockless[1]


@pytest.mark.parametrize("change", ["seed=1", "noise.block_sizes=[4]", "rows=97", "optimizer=muon"])
def test_a_run_that_would_go_on_differently_is_refused_unless_forced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    path = write_run(tmp_path, RECIPE.replace('[[stage]]\nname = "first"\nkind = "ar"\n', ""))
    with monkeypatch.context() as patch:
        assert not run(read_recipe(path), ALONE, stopping_at(3, patch))
    folder = tmp_path / "run" / "second"
    before = {path: path.read_bytes() for path in (folder / "recipe.toml", *sorted((folder / "base").iterdir()))}
    with pytest.raises(InvalidInput, match=change.partition("=")[0].removeprefix("noise.")):
        run(read_recipe(path, (change,)), ALONE)
    assert before == {path: path.read_bytes() for path in before}
    if change == "seed=1":
        assert run(read_recipe(path, (change,)), ALONE, force=True)


def test_a_failed_step_names_the_checkpoint_that_a_next_run_goes_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = read_recipe(write_run(tmp_path))
    monkeypatch.setattr("trimode.training.trainer.clipped", lambda found, limit: float("nan"))
    with pytest.raises(TrimodeError, match=r"first.*step 1: the gradient's norm is nan.*samples \d"):
        run(recipe, ALONE)


@pytest.mark.medium
@pytest.mark.parametrize("kind", ["lora", "drafter"])
def test_an_adapter_is_trained_above_a_frozen_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path = write_run(tmp_path, RECIPE + '[stage.lora]\nrank = 2\ntargets = ["o_proj"]\n[[stage]]\nname = "third"\n')
    changes = (f"stage.second.kind={kind}", "stage.third.learning_rate=0", "steps=4")
    recipe = read_recipe(path, changes)
    with monkeypatch.context() as patch:
        assert not run(recipe, ALONE, stopping_at(3, patch))
    with pytest.raises(InvalidInput, match=r"lora was .*'alpha': 32.0.* and is now .*'alpha': 64"):
        run(read_recipe(path, (*changes, "stage.second.lora.alpha=64")), ALONE)
    assert run(recipe, ALONE)
    first, second, third = (tmp_path / "run" / name / "final" for name in ("first", "second", "third"))
    assert equal(weights(first), weights(third))
    adapter = Adapter.load(second, read_config(first))
    assert adapter.draft == (kind == "drafter")
    assert all(pair.B.abs().max() > 0 for pair in adapter.pairs())
    assert [line["step"] for line in metrics(tmp_path / "run" / "second")] == [1, 2, 3, 4]
    shutil.rmtree(second)
    with pytest.raises(InvalidInput, match=r"lora was .*'alpha': 32.0.* and is now .*'alpha': 8.0"):
        run(read_recipe(path, (*changes, "stage.second.lora.alpha=8.0")), ALONE)


def test_a_signal_after_the_last_step_of_a_stage_begins_no_other(tmp_path: Path) -> None:
    recipe, seen = read_recipe(write_run(tmp_path), ("stage.first.steps=1",)), Interrupts(signal.SIGTERM)
    assert run(replace(recipe, stages=recipe.stages[:1]), ALONE)
    assert not run(recipe, ALONE, seen)
    assert not (tmp_path / "run" / "second").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("data.train=[]", "stage 'first': data.train names no file"),
        ("data.train=['none.jsonl']", "none.jsonl"),
        ("model.config=none.json", "none.json is no file"),
        ("model.tokenizer=config.json", "config.json is no folder"),
        ("stage.first.kind=lora", "stage 'first': an adapter needs a trained model"),
        ("micro=3", "streams is 2, allowed are multiples of 3"),
        ("stage.second.data.train=['none.jsonl']", "none.jsonl"),
        ("data.heldout=[]", "stage 'second': evaluate_every is 2, but data.heldout names no file"),
    ],
)
def test_what_cannot_be_trained_is_a_sentence(tmp_path: Path, change: str, sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        run(read_recipe(write_run(tmp_path), (change,)), ALONE)
    assert not (tmp_path / "run").exists()


def test_words_that_the_model_does_not_know_are_a_sentence(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text("utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(fields | {"vocab_size": 50}), "utf-8")
    with pytest.raises(InvalidInput, match=r"texts.jsonl: the tokenizer gives the token \d+, the model knows 0 to 49"):
        run(read_recipe(path), ALONE)


def test_an_adapter_by_muon_is_refused(tmp_path: Path) -> None:
    path = write_run(tmp_path, RECIPE + '[[stage]]\nname = "third"\nkind = "lora"\noptimizer = "muon"\n')
    with pytest.raises(InvalidInput, match="'third': optimizer is 'muon', an adapter's are 'adamw' alone"):
        run(read_recipe(path), ALONE)


def test_what_cannot_be_done_here_is_refused_before_the_first_stage(tmp_path: Path) -> None:
    world = World(rank=0, size=2, device=ALONE.device)
    path = write_run(tmp_path)
    with pytest.raises(InvalidInput, match="'second': optimizer is 'muon', which needs whole matrices"):
        run(read_recipe(path, ("stage.second.optimizer=muon",)), world)
    with pytest.raises(InvalidInput, match="'second': streams is 3, allowed are multiples of 2"):
        run(read_recipe(path, ("stage.second.streams=3",)), world)
    with pytest.raises(InvalidInput, match="'second': compile is true, but layers with an adapter are never compiled"):
        run(read_recipe(path, ("stage.second.kind=lora", "stage.second.compile=true")), ALONE)
    assert not (tmp_path / "run").exists()


def test_a_model_without_a_mask_learns_autoregression_only(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    text = (tmp_path / "config.json").read_text("utf-8")
    plain = text.replace('"nemotron_labs_diffusion"', '"qwen3"').replace('"mask_token_id": 3, ', "")
    (tmp_path / "config.json").write_text(plain, "utf-8")
    with pytest.raises(InvalidInput, match="has no mask token"):
        run(read_recipe(path), ALONE)
    assert (tmp_path / "run" / "first" / "final" / "config.json").exists()
