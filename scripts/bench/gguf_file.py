"""The checkpoint as a GGUF file of the llama or qwen3 architecture, for llama.cpp. Knows names, layouts; runs no model.

In its llama architecture llama.cpp turns neighbouring pairs of a head's features, we (and every safetensors checkpoint)
feature j with feature j + head_dim / 2; there rows of query and key are written in the order 0, half, 1, half + 1, ...
Where queries and keys have a norm, it is qwen3, which turns halves as we do.
The vocabulary is left out: the benchmark feeds token ids.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from torch import Tensor

from trimode.config import ModelConfig

QUANTIZED = {  # how matrices are stored, and what the file says of itself; vectors are always float32
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
LAYER_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
}  # fmt: skip
OUTER_NAMES = {
    "encoder.embed_tokens": "token_embd", "encoder.norm": "output_norm", "diffusion_head": "output",
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
}  # fmt: skip


def architecture(config: ModelConfig) -> str:
    """What llama.cpp calls the network."""
    return "qwen3" if config.qk_norm else "llama"


def complaint(config: ModelConfig, context: int) -> str | None:
    """Why llama.cpp's architectures would compute something else for texts of `context` tokens, or None."""
    if config.rope.kind != "default":
        return f"rope_type is {config.rope.kind!r}, a GGUF file is written for 'default' only"
    if config.rope.query_beta and context > config.rope.original_context:
        return f"the query scale is not 1 beyond {config.rope.original_context} positions"
    return None


def interleaved(weight_RD: Any, n_heads: int) -> Any:
    """Rows of a query or key matrix, from half-split heads to neighbouring pairs."""
    rows, width = weight_RD.shape
    return weight_RD.reshape(n_heads, 2, rows // n_heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def half_split(weight_RD: Any, n_heads: int) -> Any:
    """The way back."""
    rows, width = weight_RD.shape
    return weight_RD.reshape(n_heads, rows // n_heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width)


def renamed(name: str) -> str:
    """A tensor of a checkpoint under llama.cpp's name."""
    stem = name.removesuffix(".weight")
    if stem in OUTER_NAMES:
        return f"{OUTER_NAMES[stem]}.weight"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{LAYER_NAMES[rest]}.weight"


def arrays(config: ModelConfig, state: Mapping[str, Tensor]) -> Iterator[tuple[str, Any]]:
    """(llama.cpp's name, float32 array) of every tensor of a checkpoint."""
    heads = {} if architecture(config) == "qwen3" else {"attn_q": config.n_heads, "attn_k": config.n_kv_heads}
    for name, tensor in state.items():
        theirs, array = renamed(name), tensor.float().cpu().numpy()
        n_heads = heads.get(theirs.split(".")[-2])
        yield theirs, np.ascontiguousarray(interleaved(array, n_heads) if n_heads else array)


def write(path: Path, config: ModelConfig, state: Mapping[str, Tensor], kind: str) -> None:
    """One file with the weights as f32, f16 or q8_0. `state` has the checkpoint's own names."""
    stored, file_type = QUANTIZED[kind]
    writer = gguf.GGUFWriter(path, architecture(config))
    describe(writer, config)
    writer.add_file_type(file_type)
    for name, array in arrays(config, state):
        kept = gguf.GGMLQuantizationType.F32 if array.ndim == 1 else stored
        writer.add_tensor(name, gguf.quants.quantize(array, kept), raw_dtype=kept)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def describe(writer: Any, config: ModelConfig) -> None:
    """The geometry, under the keys of the format. Mutates the writer."""
    writer.add_name("trimode benchmark")
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("none")
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.n_layers)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope.theta)
    writer.add_layer_norm_rms_eps(config.norm_eps)
