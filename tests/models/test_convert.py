"""A conversion changes nothing the base computes, adds what the other modes need, or says why it cannot be done."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.fakes import drain
from tests.models.bases import FIELDS, RESERVED, TEMPLATE, assert_refused, write_base, write_tokenizer
from tests.models.checkpoints import refuses
from tests.models.families import FAMILIES, reference, write
from tests.texts import causal_logits
from trimode.decoding import MODES, build
from trimode.engine.engine import Engine
from trimode.errors import CheckpointError, InvalidInput, StorageError
from trimode.models import convert as conversion
from trimode.models.checkpoint import load_model, read_config, read_json, save_model
from trimode.models.convert import convert, is_untrained_conversion, mark_trained

TOKENS = (5, 60, 17, 4, 33, 33, 8)
CONVERTED = [name for name in FAMILIES if not name.startswith(("sdar", "fast"))]
NEMOTRON = [(name, "nemotron") for name in CONVERTED if "minis" in name or "mistral" in name]


def answers(folder: Path) -> dict[str, tuple[int, ...]]:
    model = load_model(folder)
    engine = Engine(model)
    requests = {mode: engine.submit(TOKENS, build(mode, model.config), max_tokens=24) for mode in MODES}
    drain(engine)
    return {mode: request.answer for mode, request in requests.items()}


def ar_answer(folder: Path) -> tuple[int, ...]:
    model = load_model(folder)
    engine = Engine(model)
    request = engine.submit(TOKENS, build("ar", model.config), max_tokens=24)
    drain(engine)
    return request.answer


@pytest.mark.parametrize(("name", "layout"), [(name, "keep") for name in CONVERTED] + NEMOTRON)
@pytest.mark.medium
def test_the_result_is_the_base_in_transformers_and_writes_in_every_mode_here(
    name: str, layout: str, tmp_path: Path
) -> None:
    base = _from_transformers(name, tmp_path / "base")
    report = convert(base, tmp_path / "out", block_size=8, layout=layout)
    assert report.max_difference == 0.0
    fields = read_json(tmp_path / "out" / "config.json")
    assert (fields["mask_token_id"], fields["block_size"], fields["tie_word_embeddings"]) == (61, 8, False)
    logits = [causal_logits(load_model(folder), TOKENS)[:, :61] for folder in (base, tmp_path / "out")]
    assert torch.equal(*logits)
    written = answers(tmp_path / "out")
    assert written["ar"] == written["self_speculation"] == ar_answer(base)
    assert len(written["diffusion"]) > 0
    if layout == "keep":
        _same_in_transformers(base, tmp_path / "out")


def _from_transformers(name: str, folder: Path) -> Path:
    return write_tokenizer(write(reference(FAMILIES[name]), FAMILIES[name], folder))


def _same_in_transformers(base: Path, out: Path) -> None:
    from transformers import AutoModelForCausalLM

    ids = torch.tensor([TOKENS])
    with torch.inference_mode():
        one, other = (AutoModelForCausalLM.from_pretrained(folder)(ids).logits for folder in (base, out))
    assert other.shape[-1] == 62
    torch.testing.assert_close(other[..., :61], one, rtol=0, atol=1e-6)


@pytest.mark.parametrize("is_tied", [True, False])
def test_the_head_gets_a_copy_of_its_own_only_where_it_was_tied(is_tied: bool, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", tie_word_embeddings=is_tied, special=RESERVED)
    report = convert(base, tmp_path / "out")
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "out"))
    assert report.untied_bytes == (61 * 24 * 4 if is_tied else 0)
    assert report.parameters_after - report.parameters_before == (61 * 24 if is_tied else 0)
    assert torch.equal(after.pop("lm_head.weight"), before.pop("lm_head.weight", before["model.embed_tokens.weight"]))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(("n_texts", "id_expected", "n_rows"), [(50, 50, 61), (61, 61, 62)])
def test_a_new_token_takes_an_unused_row_or_a_row_of_its_own(
    n_texts: int, id_expected: int, n_rows: int, tmp_path: Path
) -> None:
    base = write_base(tmp_path / "base", n_texts=n_texts)
    report = convert(base, tmp_path / "out")
    assert (report.mask.id, report.mask.text, report.mask.is_new) == (id_expected, "<|mask|>", True)
    after = load_file(tmp_path / "out" / "model.safetensors")
    embedding = load_file(base / "model.safetensors")["model.embed_tokens.weight"]
    for matrix in (after["lm_head.weight"], after["model.embed_tokens.weight"]):
        assert matrix.shape == (n_rows, 24)
        assert torch.equal(matrix[:61], embedding)
        if n_rows > 61:
            torch.testing.assert_close(matrix[61], embedding.mean(0))


def test_a_row_that_was_never_trained_becomes_the_mean_of_those_with_texts(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", n_texts=50)
    model = load_model(base)
    model.embedding[50:] = 0
    conversion.weights.save(base, dict(model.named_parameters()), conversion.tensors(model.config), torch.float32)
    report = convert(base, tmp_path / "out")
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert report.has_fresh_row
    for matrix in (after["lm_head.weight"], after["model.embed_tokens.weight"]):
        torch.testing.assert_close(matrix[50], model.embedding[:50].mean(0))
        assert not matrix[51:].any()
    assert ar_answer(base) == ar_answer(tmp_path / "out")


def test_a_conversion_done_twice_gives_the_same_files(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()  # an empty folder may be there
        convert(base, tmp_path / name)
    files = {path.name for path in (tmp_path / "one").iterdir()}
    assert files == {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
                     "tokenizer_config.json"}  # fmt: skip
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_what_is_said_of_the_bases_own_files_is_not_copied(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    model = load_model(base)
    (base / "model.safetensors").unlink()
    save_model(model, read_json(base / "config.json"), base, max_shard="9KB")
    (base / "trimode_export.json").write_text("{}")
    (base / "chat_template.jinja").write_text(TEMPLATE)
    assert len(list(base.glob("model-*.safetensors"))) > 1
    convert(base, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"model.safetensors", "chat_template.jinja"} <= names
    assert not {"model.safetensors.index.json", "trimode_export.json"} & names


@pytest.mark.parametrize("field", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("dtype", [None, "bfloat16", "float16"])
def test_the_dtype_is_the_bases_unless_another_is_asked_for(dtype: str | None, field: str, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    fields = {**read_json(base / "config.json")}
    fields[field] = fields.pop("dtype")
    (base / "config.json").write_text(json.dumps(fields))
    assert convert(base, tmp_path / "out", dtype=dtype).max_difference == 0.0
    expected = dtype or "float32"
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert {str(weight.dtype) for weight in stored.values()} == {f"torch.{expected}"}
    assert read_json(tmp_path / "out" / "config.json")[field] == expected


REFUSED = [
    ({"model_type": "gpt2"}, ("'gpt2'", "llama, ministral3, mistral")),
    ({"model_type": ["qwen3"]}, ("'model_type'", "expected type")),
    ({"model_type": "sdar"}, ("'sdar'", "no conversion")),
    ({"model_type": "nemotron_labs_diffusion"}, ("needs no conversion",)),
    ({"mask_token_id": 3}, ("mask token", "no conversion")),
    ({"quantization_config": {"bits": 4}}, ("quantization_config",)),
    ({"num_experts": 8}, ("mixture of experts",)),
    ({"model_type": "mistral3", "text_config": {"model_type": "ministral3"}}, ("text_config", "'ministral3'")),
    ({"use_sliding_window": True, "sliding_window": 16}, ("sliding_window",)),
    ({"vocab_size": 60}, ("vocab_size is 60", "60")),
    ({"hidden_act": "gelu"}, ("hidden_act",)),
]


@pytest.mark.parametrize(("changes", "names"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_cannot_be_converted_is_refused_with_the_reason(
    changes: dict[str, object], names: tuple[str, ...], tmp_path: Path
) -> None:
    base = write_tokenizer(tmp_path / "base")
    (base / "config.json").write_text(json.dumps(FIELDS | changes))
    with refuses(CheckpointError, *names):
        convert(base, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


ODD = [
    ({"block_size": 0}, ("block_size is 0", "1 to 1024")),
    ({"block_size": 1025}, ("block_size is 1025", "1 to 1024")),
    ({"block_size": 257}, ("block_size is 257", "1 to 256")),
    ({"layout": "gguf"}, ("layout is 'gguf'", "keep, nemotron")),
    ({"layout": "nemotron"}, ("layout is 'nemotron'", "'qwen3'", "keep")),
    ({"dtype": "int8"}, ("dtype is 'int8'", "float32")),
]


@pytest.mark.parametrize(("options", "names"), ODD, ids=lambda value: str(value)[:40])
def test_an_odd_parameter_is_refused_with_what_is_allowed(
    options: dict[str, object], names: tuple[str, ...], tmp_path: Path
) -> None:
    assert_refused(tmp_path, options, names)


@pytest.mark.parametrize("text", ["[]", "{", '"mask"'])
def test_a_damaged_file_of_the_tokenizer_is_named_and_nothing_left(text: str, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    (base / "special_tokens_map.json").write_text(text)
    with refuses(CheckpointError, "special_tokens_map.json"):
        convert(base, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_a_mask_token_that_is_no_text_is_passed_over(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    path = base / "tokenizer_config.json"
    path.write_text(json.dumps({**read_json(path), "mask_token": ["<unk>"]}))
    assert convert(base, tmp_path / "out").mask.text == "<|mask|>"


def test_a_folder_with_something_in_it_is_never_written_to(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    for out in (base, base / "config.json"):
        with refuses(InvalidInput, out, "not an empty folder"):
            convert(base, out)


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), StorageError("I/O error: No space left on device (os error 28)")]
)
def test_a_full_disk_is_a_sentence_and_leaves_nothing(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path, *rest: object) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise error

    base = write_base(tmp_path / "base")
    monkeypatch.setattr(conversion.weights, "save", fail)
    with pytest.raises(OSError, match="out: not written, the disk is full"):
        convert(base, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_files_that_compute_something_else_never_appear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, save = write_base(tmp_path / "base"), conversion.weights.save

    def spoil(folder: Path, parameters: dict[str, torch.Tensor], *rest: object) -> None:
        save(folder, parameters | {"norm": parameters["norm"] * 1.01}, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(conversion.weights, "save", spoil)
    with refuses(CheckpointError, "do not compute what the base does"):
        convert(base, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_a_conversion_stays_untrained_until_all_weights_were_trained_for_all_modes(tmp_path: Path) -> None:
    convert(write_base(tmp_path / "base"), tmp_path / "out")
    fields = read_json(tmp_path / "out" / "config.json")
    assert fields["trimode"] == {"converted_from": "base", "trained": []}
    for kinds, expected in (((), True), (("ar", "lora"), True), (("ar", "joint"), False), (("sft",), False)):
        trained = fields
        for kind in kinds:
            trained = mark_trained(trained, kind)
        assert is_untrained_conversion(trained) is expected
        assert trained["trimode"]["trained"] == list(kinds)
    assert not is_untrained_conversion(FIELDS)
    assert mark_trained(FIELDS, "joint") == FIELDS
    assert fields["trimode"]["trained"] == []


def test_the_report_names_what_was_done_and_what_is_missing(tmp_path: Path) -> None:
    text = convert(write_base(tmp_path / "base"), tmp_path / "out").text()
    for part in (
        "<|mask|> = 61",
        "(5,952 bytes)",
        "block size   32",
        "trimode train",
        "before training",
        "greedy text",
    ):
        assert part in text
    assert "was its own" in convert(write_base(tmp_path / "b", tie_word_embeddings=False), tmp_path / "o").text()


@pytest.mark.medium
def test_a_text_model_taken_out_of_its_wrapper_as_the_docs_say_can_be_converted(tmp_path: Path) -> None:
    import transformers

    text = FAMILIES["ministral3-tied"]
    fields = reference(text).config.to_dict()
    image = dict(model_type="pixtral", hidden_size=16, intermediate_size=16, num_hidden_layers=1, image_size=28,
                 num_attention_heads=2, patch_size=14, head_dim=8)  # fmt: skip
    config = transformers.Mistral3Config(text_config=fields, vision_config=image, image_token_index=10)
    transformers.Mistral3ForConditionalGeneration(config).save_pretrained(tmp_path / "BASE")
    with refuses(CheckpointError, "'mistral3'", "'ministral3'", "docs/converting.md"):
        convert(write_tokenizer(tmp_path / "BASE"), tmp_path / "out")
    block = (Path(__file__).parents[2] / "docs" / "converting.md").read_text("utf-8").split("```python\n")[1]
    code = block.split("```")[0].replace('"BASE"', repr(str(tmp_path / "BASE")))
    exec(code.replace('"TEXT"', repr(str(tmp_path / "TEXT"))), {})
    report = convert(write_tokenizer(tmp_path / "TEXT"), tmp_path / "out", layout="nemotron")
    assert (report.max_difference, read_config(tmp_path / "out").model_type) == (0.0, "nemotron_labs_diffusion")
