"""Tiny checkpoint folders, good and bad, written without trimode: the layout of the family spelled out once more."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor

from trimode.errors import TrimodeError

FIELDS: dict[str, object] = {
    "architectures": ["NemotronLabsDiffusionModel"], "model_type": "nemotron_labs_diffusion", "vocab_size": 61,
    "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "rms_norm_eps": 1e-5, "max_position_embeddings": 256,
    "rope_parameters": {
        "rope_type": "yarn", "rope_theta": 1e6, "factor": 16.0, "original_max_position_embeddings": 16,
        "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1,
    },
    "tie_word_embeddings": False, "mask_token_id": 3, "bos_token_id": 1, "eos_token_id": 2, "block_size": 8,
    "dlm_paradigm": "bidirectional", "attention_bias": False, "mlp_bias": False, "hidden_act": "silu",
    "sliding_window": None, "dtype": "bfloat16",
}  # fmt: skip


def shapes(tied: bool = False) -> dict[str, tuple[int, ...]]:
    """Names and shapes of FIELDS' tensors (spec, section 1.5), in the order of transformers' state dict."""
    width, inner, q, kv, vocabulary = 24, 40, 32, 16, 61
    out: dict[str, tuple[int, ...]] = {"encoder.embed_tokens.weight": (vocabulary, width)}
    for i in range(3):
        layer = {
            "self_attn.q_proj": (q, width), "self_attn.k_proj": (kv, width), "self_attn.v_proj": (kv, width),
            "self_attn.o_proj": (width, q), "mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width),
            "mlp.down_proj": (width, inner), "input_layernorm": (width,), "post_attention_layernorm": (width,),
        }  # fmt: skip
        out |= {f"encoder.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
    out["encoder.norm.weight"] = (width,)
    return out if tied else out | {"diffusion_head.weight": (vocabulary, width)}


def random_state(dtype: torch.dtype = torch.bfloat16, tied: bool = False) -> dict[str, Tensor]:
    """Random tensors; every value, also in float32, uses all its bits."""
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes(tied).items()}


def store(state: Mapping[str, Tensor], folder: Path, max_shard: str = "5GB") -> None:
    """Safetensors files, with an index where there are several."""
    plan = split_torch_state_dict_into_shards(dict(state), max_shard_size=max_shard)
    for file, names in plan.filename_to_tensors.items():
        save_file({name: state[name].contiguous() for name in names}, folder / file, metadata={"format": "pt"})
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def write_config(folder: Path, fields: Mapping[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields, indent=2) + "\n", "utf-8")


def write(folder: Path, max_shard: str = "5GB", state: Mapping[str, Tensor] | None = None, **changes: object) -> Path:
    """A whole checkpoint; `changes` are fields of config.json, `state` replaces the tensors."""
    fields = FIELDS | changes
    write_config(folder, fields)
    if state is None:
        state = random_state(getattr(torch, str(fields["dtype"])), bool(fields["tie_word_embeddings"]))
    store(state, folder, max_shard)
    return folder


@contextmanager
def refuses(kind: type[TrimodeError], *names: object) -> Iterator[None]:
    """The block raises exactly this error, in one sentence that names all of `names`."""
    with pytest.raises(TrimodeError) as caught:
        yield
    sentence = str(caught.value)
    assert type(caught.value) is kind
    assert 0 < len(sentence) <= 1000
    assert "\n" not in sentence
    assert "Traceback" not in sentence
    for name in names:
        assert str(name) in sentence, f"{name!r} is not named in {sentence!r}"
