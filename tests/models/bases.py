"""Tiny ordinary causal checkpoints with a tokenizer, written without transformers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from tokenizers import AddedToken, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from tests.models.checkpoints import refuses
from trimode.errors import InvalidInput
from trimode.models.checkpoint import empty, family, save_model
from trimode.models.convert import convert
from trimode.models.transformer import initialise

FIELDS: dict[str, object] = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": 61, "hidden_size": 24,
    "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "rms_norm_eps": 1e-6, "max_position_embeddings": 256, "hidden_act": "silu", "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "bos_token_id": 1, "eos_token_id": 2,
    "dtype": "float32", "use_sliding_window": False, "attention_bias": False,
}  # fmt: skip
SPECIAL = ("<unk>", "<s>", "</s>", "<|user|>")
RESERVED = (*SPECIAL, "<|reserved_special_token_0|>", "<|reserved_special_token_1|>")
TEMPLATE = "{{ bos_token }}{% for m in messages %}<|user|>{{ m['content'] }}{% endfor %}"
SETTINGS: dict[str, object] = {
    "tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>",
    "chat_template": TEMPLATE,
}  # fmt: skip


def write_tokenizer(folder: Path, n: int = 61, special: Sequence[str] = SPECIAL, **settings: object) -> Path:
    """`n` texts: the word for unknown ones, the special ones, then w4, w5, ...; split at white space."""
    words = [*special, *(f"w{index}" for index in range(len(special), n))]
    backend = Backend(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in special[1:]])
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(SETTINGS | settings), "utf-8")
    return folder


def write_base(folder: Path, n_texts: int = 61, special: Sequence[str] = SPECIAL, **changes: object) -> Path:
    """Random weights; `changes` are fields of config.json."""
    write_tokenizer(folder, n_texts, special)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2], "do_sample": False}), "utf-8")
    fields: Mapping[str, object] = FIELDS | changes
    model = empty(family(fields).parse(fields, None), torch.float32, torch.device("cpu"))
    initialise(model, 0)
    save_model(model.requires_grad_(False), fields, folder)
    return folder


def assert_refused(tmp_path: Path, options: Mapping[str, object], names: Sequence[str]) -> None:
    """Converting a base with these options is refused in a sentence with all names, and leaves nothing behind."""
    base = write_tokenizer(tmp_path / "base", special=RESERVED)
    (base / "config.json").write_text(json.dumps(FIELDS))
    with refuses(InvalidInput, *names):
        convert(base, tmp_path / "out", **options)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["base"]
