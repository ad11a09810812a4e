"""What training made loads everywhere: in our engine, and in transformers for the families it knows."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import trimode
from tests.fakes import byte_tokenizer
from tests.models import families
from tests.models.checkpoints import refuses
from tests.training.saves import FACTS, make_base, new, run, small_disk
from trimode.errors import CheckpointError, InvalidInput, StorageError, TrimodeError
from trimode.models.checkpoint import MARK, load_model
from trimode.models.transformer import Transformer
from trimode.numerics.packed import packed
from trimode.spans import Span
from trimode.training.checkpoint import Checkpoints
from trimode.training.export import export_run, find_stage, write_final

pytestmark = pytest.mark.medium


def make_stage(folder: Path, n: int = 3) -> list[dict[str, Tensor]]:
    """A stage of `n` steps with a checkpoint after each, and the weights at each."""
    make_base(folder / "base")
    model, optims = new()
    checkpoints = Checkpoints(folder / "checkpoints", keep=n)
    weights = []
    for step in range(n):
        run(model, optims, step, step + 1)
        checkpoints.save(step + 1, model, optims, FACTS)
        weights.append({name: weight.detach().clone() for name, weight in model.named_parameters()})
    return weights


def holds(folder: Path, weights: dict[str, Tensor]) -> bool:
    return all(torch.equal(weight, weights[name]) for name, weight in load_model(folder).named_parameters())


def causal_logits(model: Transformer, tokens: Tensor) -> Tensor:
    visibility = packed([[Span(commit=tuple(tokens.tolist()), kind="prefill")]], len(tokens))
    return model.logits(model(tokens, torch.arange(len(tokens)), visibility))


@pytest.mark.medium
@pytest.mark.parametrize("name", ["qwen3", "llama3-tied", "ministral3"])
def test_a_final_model_has_the_same_logits_in_transformers(name: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    family = families.FAMILIES[name]
    base = families.write(families.reference(family), family, tmp_path / "base")
    path = base / "config.json"
    own = {"mask_token_id": 3, "block_size": 8}
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    model = load_model(base)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.01)
    write_final(model, base, tmp_path / "final")
    assert json.loads((tmp_path / "final" / "config.json").read_text()).items() >= own.items()
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "final", dtype=torch.float32)
    tokens = torch.randint(4, 61, (20,), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs(tokens[None]).logits[0]
        torch.testing.assert_close(causal_logits(model, tokens), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.medium
def test_an_exported_qwen3_speaks_in_every_mode_of_our_engine(tmp_path: Path) -> None:
    family = families.Family("Qwen3", dict(head_dim=16, vocab_size=262), {"mask_token_id": 3, "block_size": 8})
    base = families.write(families.reference(family), family, tmp_path / "base")
    byte_tokenizer().backend.save(str(base / "tokenizer.json"))
    write_final(load_model(base), base, tmp_path / "final")
    llm = trimode.load(tmp_path / "final", backend="torch")
    texts = {mode: llm.generate("ab", mode=mode, max_tokens=8).token_ids for mode in ("ar", "self_speculation")}
    assert texts["ar"] == texts["self_speculation"]
    assert llm.generate("ab", mode="diffusion", max_tokens=8).completion_tokens > 0


def test_a_final_folder_holds_the_weights_and_the_small_files_of_its_base(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", extra={"kept": True})
    (base / "chat_template.jinja").write_text("{{ messages }}")
    model, _ = new()
    write_final(model, base, tmp_path / "final")
    assert holds(tmp_path / "final", dict(model.named_parameters()))
    for name in ("config.json", "tokenizer.json", "chat_template.jinja"):
        assert (tmp_path / "final" / name).read_bytes() == (base / name).read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["base", "final"]


@pytest.mark.medium
def test_a_model_spread_over_two_processes_is_written_whole(pair: Path) -> None:
    assert holds(pair / "final", torch.load(pair / "final.pt"))
    assert sorted(os.listdir(pair / "final")) == ["config.json", "model.safetensors", "tokenizer.json", MARK]


@pytest.mark.medium
def test_a_disk_that_is_full_for_the_writer_is_one_sentence_for_all(pair: Path) -> None:
    sentences = {(pair / f"export {rank}").read_text() for rank in range(2)}
    assert len(sentences) == 1
    assert "never could not be written, the disk is full" in sentences.pop()
    assert not (pair / "never").exists()


def test_only_an_earlier_export_is_replaced(tmp_path: Path) -> None:
    base, (model, _) = make_base(tmp_path / "base"), new()
    write_final(model, base, tmp_path / "final")
    again, _ = new(seed=1)
    write_final(again, base, tmp_path / "final")
    assert holds(tmp_path / "final", dict(again.named_parameters()))
    (tmp_path / "final" / MARK).unlink()
    with refuses(InvalidInput, tmp_path / "final", "exists already"):
        write_final(model, base, tmp_path / "final")


def test_a_full_disk_leaves_no_export_and_the_earlier_one(tmp_path: Path) -> None:
    base, (model, _) = make_base(tmp_path / "base"), new()
    with small_disk(30_000), refuses(StorageError, tmp_path / "final", "the disk is full"):
        write_final(model, base, tmp_path / "final")
    assert sorted(os.listdir(tmp_path)) == ["base"]
    write_final(model, base, tmp_path / "final")
    with small_disk(30_000), refuses(StorageError, tmp_path / "final", "the disk is full"):
        write_final(new(seed=1)[0], base, tmp_path / "final")
    assert holds(tmp_path / "final", dict(model.named_parameters()))


@pytest.mark.parametrize("step", [None, 1, 2])
def test_the_newest_checkpoint_is_exported_or_the_one_asked_for(step: int | None, tmp_path: Path) -> None:
    weights = make_stage(tmp_path / "stage")
    chosen = export_run(tmp_path / "stage", tmp_path / "out", step=step)
    assert [path.name for path in chosen] == [f"step-0000000{step or 3}"]
    assert holds(tmp_path / "out", weights[(step or 3) - 1])
    mark = json.loads((tmp_path / "out" / MARK).read_text())
    assert mark["steps"] == [step or 3]


@pytest.mark.parametrize(("average", "step"), [(2, None), (3, None), (2, 2)])
def test_an_average_is_the_mean_of_the_last_checkpoints(average: int, step: int | None, tmp_path: Path) -> None:
    weights = make_stage(tmp_path / "stage")
    export_run(tmp_path / "stage", tmp_path / "out", average=average, step=step)
    last = weights[:step][-average:]
    for name, weight in load_model(tmp_path / "out").named_parameters():
        torch.testing.assert_close(weight, torch.stack([one[name] for one in last]).mean(0), rtol=1e-6, atol=1e-7)


def test_a_damaged_checkpoint_is_not_averaged(tmp_path: Path) -> None:
    weights = make_stage(tmp_path / "stage")
    os.truncate(tmp_path / "stage" / "checkpoints" / "step-00000003" / "__0_0.distcp", 50)
    export_run(tmp_path / "stage", tmp_path / "out")
    assert holds(tmp_path / "out", weights[1])


def test_of_a_run_the_stage_that_saved_last_is_exported(tmp_path: Path) -> None:
    weights = make_stage(tmp_path / "run" / "second", 2)
    make_stage(tmp_path / "run" / "first", 1)
    for place in (tmp_path / "run" / "first").rglob("facts.json"):
        os.utime(place, (1, 1))
    assert find_stage(tmp_path / "run") == tmp_path / "run" / "second"
    export_run(tmp_path / "run", tmp_path / "out")
    assert holds(tmp_path / "out", weights[-1])


REFUSED: list[tuple[dict[str, Any], type[TrimodeError], str]] = [
    (dict(run="nowhere"), InvalidInput, "nowhere is not a run"),
    (dict(run="stage/base"), InvalidInput, "base is not a run"),
    (dict(run="empty"), InvalidInput, "holds no complete checkpoint"),
    (dict(average=4), InvalidInput, "average is 4, but"),
    (dict(average=3, step=2), InvalidInput, "holds 2 complete checkpoints up to step 2 (1, 2, 3)"),
    (dict(average=0), InvalidInput, "average is 0, allowed is at least 1"),
    (dict(step=7), InvalidInput, "holds no complete checkpoint of step 7, there are 1, 2, 3"),
    (dict(out="stage"), InvalidInput, "stage exists already"),
]


def test_what_cannot_be_exported_is_refused_in_a_sentence(tmp_path: Path) -> None:
    make_stage(tmp_path / "stage")
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    for changes, kind, sentence in REFUSED:
        asked = dict(run="stage", out="out") | changes
        with refuses(kind, sentence):
            export_run(
                tmp_path / asked["run"], tmp_path / asked["out"], asked.get("average", 1), asked.get("step"),
            )  # fmt: skip
    assert sorted(os.listdir(tmp_path)) == ["empty", "stage"]


def test_an_adapters_checkpoint_makes_no_model(tmp_path: Path) -> None:
    make_base(tmp_path / "base")
    model, _ = new()
    model.embedding.requires_grad_(False)
    Checkpoints(tmp_path / "checkpoints").save(1, model, [], FACTS)
    with refuses(CheckpointError, "step-00000001", "1 of 15 weights are missing"):
        export_run(tmp_path, tmp_path / "out")
