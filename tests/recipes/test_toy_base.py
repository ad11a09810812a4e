"""The tutorial's folder: a Qwen3-shaped model without a mask, data whose heldout rows are nowhere in training."""

import json
import tomllib
from pathlib import Path

import pytest
import torch

from recipes.toy_base import RECIPES, write
from trimode.models.checkpoint import empty, family, read_config, read_json, save_model
from trimode.models.convert import convert
from trimode.models.transformer import initialise
from trimode.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tutorial")
    write(out, 400)
    return out


def prompts(file: Path) -> set[str]:
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return {line["prompt"] if "prompt" in line else line["messages"][0]["content"] for line in lines}


def test_no_heldout_prompt_stands_in_any_training_file(folder: Path) -> None:
    files = sorted((folder / "data").glob("*.jsonl"))
    heldout = [file for file in files if file.name.startswith("heldout-")]
    assert len(files) == 6
    seen = set.union(*(prompts(file) for file in files if file not in heldout))
    assert all(len(prompts(file)) == 50 and not prompts(file) & seen for file in heldout)


def test_the_model_is_ordinary_and_its_conversion_adds_a_token(folder: Path, tmp_path: Path) -> None:
    fields = read_json(folder / "fresh" / "config.json")
    config = read_config(folder / "fresh")
    model = empty(family(fields).parse(fields, None), torch.float32, torch.device("cpu"))
    initialise(model, 0)
    assert (config.model_type, config.qk_norm, config.tied, config.mask_token_id) == ("qwen3", True, True, None)
    assert 1e6 < sum(weight.numel() for weight in model.parameters()) < 2e6
    base = tmp_path / "base"
    save_model(model.requires_grad_(False), fields, base)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (base / name).write_bytes((folder / "fresh" / name).read_bytes())
    report = convert(base, tmp_path / "out", block_size=16)
    assert (report.mask.text, report.mask.id, report.mask.is_new) == ("<|mask|>", 4096, True)
    one, other = Tokenizer.load(base), Tokenizer.load(tmp_path / "out")
    text = "def f(x):\n    return <|mask|>\n"
    assert one.encode(text) == other.encode(text)


def test_every_recipe_reads_files_that_are_there_or_that_an_earlier_one_writes(folder: Path) -> None:
    written = {"converted", *(f"runs/{path.stem}/final" for path in RECIPES.glob("*.toml"))}
    for path in RECIPES.glob("*.toml"):
        recipe = tomllib.loads((folder / path.name).read_text("utf-8"))
        model, data = recipe["model"], recipe["data"]
        assert model.get("source", "converted") in written
        for name in (*data["train"], *data["heldout"], *(model[x] for x in ("config", "tokenizer") if x in model)):
            assert (folder / name).exists(), name
        assert [stage["kind"] for stage in recipe["stage"]] == [path.stem]
