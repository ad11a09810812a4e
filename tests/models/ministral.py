"""Checkpoints in the Nemotron-Labs-Diffusion layout, made from transformers' Ministral-3: the reference of the family.

The library is imported on first use, because that alone takes seconds.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tests.models.checkpoints import store, write_config

if TYPE_CHECKING:
    from transformers import Ministral3ForCausalLM

GEOMETRY: dict[str, object] = dict(
    vocab_size=61, hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16, max_position_embeddings=256, rms_norm_eps=1e-5, pad_token_id=None,
    bos_token_id=1, eos_token_id=2, tie_word_embeddings=False,
)  # fmt: skip


def rope(kind: str, theta: float, factor: float = 1.0, original: int = 16, beta: float = 0.0) -> dict[str, object]:
    """`rope_parameters` as the released checkpoints hold them (spec, section 1.3)."""
    shared = {"rope_type": kind, "rope_theta": theta, "original_max_position_embeddings": original}
    yarn = {"factor": factor, "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0}
    return shared | (yarn if kind == "yarn" else {}) | {"llama_4_scaling_beta": beta}


def reference(rope_parameters: Mapping[str, object], **changes: object) -> "Ministral3ForCausalLM":
    """A random network of transformers in fp32, with weights large enough that its logits differ clearly."""
    from transformers import Ministral3Config, Ministral3ForCausalLM

    fields = GEOMETRY | {"rope_parameters": dict(rope_parameters)} | changes
    model = Ministral3ForCausalLM(Ministral3Config(**fields, attn_implementation="eager")).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1:
                weight.copy_(1 + 0.2 * torch.randn(weight.shape, generator=generator))
            else:
                std = 1.0 if "embed_tokens" in name else weight.shape[1] ** -0.5
                weight.normal_(0.0, std, generator=generator)
    return model


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`model.*` and `lm_head` under the names of the family (spec, section 1.5)."""
    heads = {"model": "encoder", "lm_head": "diffusion_head"}
    return {f"{heads[name.split('.', 1)[0]]}.{name.split('.', 1)[1]}": weight for name, weight in state.items()}


def write(model: "Ministral3ForCausalLM", folder: Path, dtype: str = "float32", max_shard: str = "5GB") -> Path:
    """config.json and safetensors, cut into shards as transformers cuts them: in the order of its state dict."""
    state = renamed(model.state_dict())
    if model.config.tie_word_embeddings:
        del state["diffusion_head.weight"]  # transformers stores a tied matrix once
    write_config(folder, config_fields(model, dtype))
    store({name: weight.to(getattr(torch, dtype)) for name, weight in state.items()}, folder, max_shard)
    return folder


def config_fields(model: "Ministral3ForCausalLM", dtype: str = "float32") -> dict[str, object]:
    """The config of the reference with the fields the family adds."""
    config = model.config
    own = {
        "model_type": "nemotron_labs_diffusion", "architectures": ["NemotronLabsDiffusionModel"],
        "rope_parameters": dict(config.rope_parameters), "mask_token_id": 3, "block_size": 8,
        "dlm_paradigm": "bidirectional", "ar_loss_weight": 1.0, "dlm_loss_weight": None,
        "dp_varying_mask_ratio": False, "dtype": dtype, "attention_bias": False, "mlp_bias": False,
        "attention_dropout": 0.0, "sliding_window": None, "hidden_act": "silu", "use_cache": False,
    }  # fmt: skip
    return {name: getattr(config, name) for name in GEOMETRY} | own
