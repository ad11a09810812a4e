"""NVIDIA's Nemotron-Labs-Diffusion layout: Ministral-3 geometry, `encoder.*` names and one `diffusion_head`.

Written from the technical report (arXiv 2607.05722), the public config fields and the tensor names; see
docs/architecture.md. Two public names, as in every family file: `parse` and `tensors`.
"""

from collections.abc import Iterator

from trimode.config import Json, ModelConfig, Rope, read, read_optional
from trimode.errors import CheckpointError
from trimode.models.weights import Tensors

FIXED = {"hidden_act": "silu", "sliding_window": None}  # what the network takes for granted


def parse(fields: Json, eos: tuple[int, ...] | None) -> ModelConfig:
    """config.json (and the EOS ids of generation_config.json, which win) -> ModelConfig."""
    hidden, n_heads = read(fields, "hidden_size", int), read(fields, "num_attention_heads", int)
    for name, expected in FIXED.items():
        if fields.get(name, expected) != expected:
            raise CheckpointError(f"config.json: {name} is {fields[name]!r}, this family has {expected!r}")
    own_eos = fields.get("eos_token_id")
    own = tuple(own_eos) if isinstance(own_eos, list) else (() if own_eos is None else (own_eos,))
    return ModelConfig(
        model_type=read(fields, "model_type", str),
        vocab_size=read(fields, "vocab_size", int),
        hidden_size=hidden,
        intermediate_size=read(fields, "intermediate_size", int),
        n_layers=read(fields, "num_hidden_layers", int),
        n_heads=n_heads,
        n_kv_heads=read(fields, "num_key_value_heads", int),
        head_dim=read_optional(fields, "head_dim", int, hidden // max(n_heads, 1)),  # 14B: 128, not 5120 / 32
        norm_eps=float(read(fields, "rms_norm_eps", (int, float))),
        context_length=read(fields, "max_position_embeddings", int),
        rope=parse_rope(fields),
        tied=read_optional(fields, "tie_word_embeddings", bool, False),
        mask_token_id=read(fields, "mask_token_id", int),
        eos_token_ids=eos or own,
        bos_token_id=read_optional(fields, "bos_token_id", int, None),
        block_size=read(fields, "block_size", int),
        dtype=read_optional(fields, "dtype", str, read_optional(fields, "torch_dtype", str, "bfloat16")),
    )


def parse_rope(fields: Json) -> Rope:
    """`rope_parameters`; the factor is always the file's own, it differs between the released checkpoints."""
    given = read(fields, "rope_parameters", dict)
    kind, where = given.get("rope_type", "default"), "config.json: rope_parameters"
    theta = float(read(given, "rope_theta", (int, float), where))
    for name in ("attention_factor", "partial_rotary_factor"):
        if given.get(name) not in (None, 1, 1.0):
            raise CheckpointError(f"{where}: {name} is {given[name]!r}, this family has 1")
    query_beta = float(read_optional(given, "llama_4_scaling_beta", (int, float), 0.0, where))
    original = read_optional(given, "original_max_position_embeddings", int, 0, where)
    if kind == "default":
        return Rope(theta=theta, original_context=original, query_beta=query_beta)
    if kind != "yarn":
        raise CheckpointError(f"{where}: rope_type is {kind!r}, known are 'default' and 'yarn'")
    if given.get("mscale", 1.0) != given.get("mscale_all_dim", 1.0):
        raise CheckpointError(f"{where}: mscale and mscale_all_dim differ, which this family never has")
    return Rope(
        theta=theta,
        kind=kind,
        factor=float(read(given, "factor", (int, float), where)),
        original_context=read(given, "original_max_position_embeddings", int, where),
        beta_fast=float(read_optional(given, "beta_fast", (int, float), 32.0, where)),
        beta_slow=float(read_optional(given, "beta_slow", (int, float), 1.0, where)),
        query_beta=query_beta,
    )


def tensors(config: ModelConfig) -> Iterator[Tensors]:
    """(parameter, the checkpoint's tensors that stack into it with their row counts), both ways.

    In the order of transformers' state dict, by which shards are cut.
    """
    q, kv, inner = (
        config.n_heads * config.head_dim,
        config.n_kv_heads * config.head_dim,
        config.intermediate_size,
    )
    width = config.hidden_size
    yield "embedding", (("encoder.embed_tokens.weight", config.vocab_size),)
    for i in range(config.n_layers):
        here, there = f"layers.{i}", f"encoder.layers.{i}"
        names = tuple(f"{there}.self_attn.{x}_proj.weight" for x in "qkv")
        yield f"{here}.qkv", tuple(zip(names, (q, kv, kv), strict=True))
        yield f"{here}.out", ((f"{there}.self_attn.o_proj.weight", width),)
        yield f"{here}.gate_up", tuple((f"{there}.mlp.{x}_proj.weight", inner) for x in ("gate", "up"))
        yield f"{here}.down", ((f"{there}.mlp.down_proj.weight", width),)
        yield f"{here}.input_norm", ((f"{there}.input_layernorm.weight", width),)
        yield f"{here}.post_norm", ((f"{there}.post_attention_layernorm.weight", width),)
    yield "norm", (("encoder.norm.weight", width),)
    yield "head", (("diffusion_head.weight", config.vocab_size),)
