"""`trimode merge` writes a checkpoint that answers as model and adapter do; --adapter and --drafter hold for a call."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.adapters import random_adapter
from tests.cli.test_cli import PROMPT, run_inside
from tests.training.saves import small_disk
from trimode.api import BUNDLED, load
from trimode.models.checkpoint import MARK, load_model, save_model

pytestmark = pytest.mark.medium


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model in float32, two adapters for it, and a drafter."""
    folder = tmp_path_factory.mktemp("adapters")
    shutil.copytree(BUNDLED, folder / "base")
    fields = json.loads((folder / "base" / "config.json").read_text())
    model = load_model(BUNDLED, "float32", "cpu")
    save_model(model, fields | {"dtype": "float32"}, folder / "base")
    (folder / "base" / MARK).write_text("{}")
    for seed, name in enumerate("ab"):
        random_adapter(model.config, seed, 1.5).save(folder / name, "base")
    random_adapter(model.config, 2, 1.5, targets=("o_proj",), draft=True).save(folder / "swift", "base")
    return folder


def written(capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[list[int], int]:
    """Tokens and forwards of an answer."""
    from trimode.cli import app

    arguments = ["generate", PROMPT, "--max-tokens", "24", "--json", *flags]
    app(arguments, standalone_mode=False)
    row = json.loads(capsys.readouterr().out)
    return row["token_ids"], row["forwards"]["total"]


def test_a_merged_checkpoint_writes_what_model_and_adapter_write(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapter = str(folder / "base"), str(folder / "a")
    plain = written(capsys, "--model", base)
    assert run_inside(["merge", base, adapter, "--out", str(tmp_path / "merged")], monkeypatch) == 0
    assert capsys.readouterr().out == ""
    with_it = written(capsys, "--model", base, "--adapter", adapter)
    assert with_it[0] == written(capsys, "--model", str(tmp_path / "merged"))[0] != plain[0]
    assert with_it == written(capsys, "--model", base, "--adapter", f"x={adapter}", "--adapter",
                              f"y={folder / 'b'}")  # fmt: skip
    names = {path.name for path in (tmp_path / "merged").iterdir()}
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= names
    assert MARK not in names
    assert load(tmp_path / "merged").model.config.dtype == "float32"


def test_a_drafter_changes_only_the_number_of_forwards(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ("--model", str(folder / "base"), "--backend", "torch")
    plain, drafted = (written(capsys, *base, *more) for more in ((), ("--drafter", str(folder / "swift"))))
    assert plain[0] == drafted[0]
    assert plain[1] != drafted[1]


def test_lines_of_a_file_name_their_adapters(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [{}, {"adapter": "y"}, {"adapter": None}, {"adapter": "z"}]
    source.write_text("".join(json.dumps({"prompt": PROMPT, "max_tokens": 16, **row}) + "\n" for row in rows))
    flags = ["--adapter", f"x={folder / 'a'}", "--adapter", f"y={folder / 'b'}", "--model", str(folder / "base")]
    assert run_inside(["generate", "--input", str(source), "--output", str(target), *flags], monkeypatch) == 0
    answers = {row["index"]: row for row in map(json.loads, target.read_text().splitlines())}
    llm = load(folder / "base", backend="torch")
    llm.load_adapter(folder / "a", "x")
    llm.load_adapter(folder / "b", "y")
    for index, name in enumerate(("x", "y", None)):
        assert tuple(answers[index]["token_ids"]) == llm.generate(PROMPT, max_tokens=16, adapter=name).token_ids
    assert answers[3]["error"] == "adapter is 'z', loaded are: x, y"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["merge", "{0}/base", "{0}/swift", "--out", "{0}/new"], "swift is a draft adapter"),
        (["merge", "{0}/base", "{0}/a", "--out", "{0}/b"], "is there already"),
        (["merge", "{0}/base", "{0}/none", "--out", "{0}/new"], "adapter_model.safetensors: this file is missing"),
        (["merge", "{0}/none", "{0}/a", "--out", "{0}/new"], "none: no such folder"),
        (["generate", "x", "--adapter", "x={0}/none"], "this file is missing"),
        (["generate", "x", "--adapter", "{0}/a", "--adapter", "{0}/a"], "adapter name is 'a'"),
        (["generate", "x", "--adapter", "={0}/a"], "adapter name is ''"),
        (["generate", "x", "--drafter", "{0}/none"], "this file is missing"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    arguments: list[str], sentence: str, folder: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    assert run_inside([text.format(folder) for text in arguments], monkeypatch) == 2
    output = capsys.readouterr()
    assert (output.out, output.err.count("\n")) == ("", 1)
    assert sentence in output.err
    assert not (folder / "new").exists()


def test_a_full_disk_is_a_sentence_and_leaves_no_checkpoint(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(1_000_000):
        assert run_inside(["merge", str(BUNDLED), str(folder / "a"), "--out", str(tmp_path / "out")], monkeypatch) == 1
    assert "out: not written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_keeps_its_dtype(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_inside(["merge", str(BUNDLED), str(folder / "a"), "--out", str(tmp_path / "out")], monkeypatch) == 0
    before, after = load_model(BUNDLED, "float32", "cpu"), load_model(tmp_path / "out", "float32", "cpu")
    assert after.config == before.config
    assert torch.equal(after.embedding, before.embedding)
    assert not torch.equal(after.layers[0].qkv, before.layers[0].qkv)
    assert torch.equal(after.layers[0].qkv, after.layers[0].qkv.to(getattr(torch, before.config.dtype)).float())
