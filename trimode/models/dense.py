"""What dense decoder-only checkpoints have in common: the fields of config.json and the names of the tensors.

A family file says what is its own. Knows no model and no mode.
"""

from collections.abc import Iterator

from trimode.config import Json, ModelConfig, Rope, read, read_optional
from trimode.errors import CheckpointError
from trimode.models.rope import parse_rope
from trimode.models.weights import Tensors

FIXED = {"hidden_act": "silu", "mlp_bias": False}  # what the network takes for granted


def parse(fields: Json, eos: tuple[int, ...] | None, rope: Rope | None = None) -> ModelConfig:
    """config.json (and the EOS ids of generation_config.json, which win) -> ModelConfig."""
    hidden, n_heads = read(fields, "hidden_size", int), read(fields, "num_attention_heads", int)
    for name, expected in FIXED.items():
        if fields.get(name) not in (None, expected):
            raise CheckpointError(f"config.json: {name} is {fields[name]!r}, the network has {expected!r}")
    check_window(fields)
    own_eos = fields.get("eos_token_id")
    own = tuple(own_eos) if isinstance(own_eos, list) else (() if own_eos is None else (own_eos,))
    return ModelConfig(
        model_type=read(fields, "model_type", str),
        vocab_size=read(fields, "vocab_size", int),
        hidden_size=hidden,
        intermediate_size=read(fields, "intermediate_size", int),
        n_layers=read(fields, "num_hidden_layers", int),
        n_heads=n_heads,
        n_kv_heads=read_optional(fields, "num_key_value_heads", int, n_heads),
        head_dim=read_optional(fields, "head_dim", int, hidden // max(n_heads, 1)),
        norm_eps=float(read(fields, "rms_norm_eps", (int, float))),
        context_length=read(fields, "max_position_embeddings", int),
        rope=rope or parse_rope(fields),
        tied=read_optional(fields, "tie_word_embeddings", bool, False),
        mask_token_id=read_optional(fields, "mask_token_id", int, None),
        eos_token_ids=eos or own,
        bos_token_id=read_optional(fields, "bos_token_id", int, None),
        block_size=read_optional(fields, "block_size", int, None),
        canvas_logits=read_optional(fields, "canvas_logits", str, "own"),
        dtype=read_optional(fields, "dtype", str, read_optional(fields, "torch_dtype", str, "bfloat16")),
    )


def check_window(fields: Json) -> None:
    """Refuse a sliding window that some layer would really use: every layer here sees the whole context."""
    window = read_optional(fields, "sliding_window", int, None)
    kinds = read_optional(fields, "layer_types", list, None)
    if window is None or not read_optional(fields, "use_sliding_window", bool, True):
        return
    if kinds is None:
        first = read_optional(fields, "max_window_layers", int, 0)  # layers before this one have no window
        is_used = first < read(fields, "num_hidden_layers", int)
    else:
        is_used = "sliding_attention" in kinds
    context = read(fields, "max_position_embeddings", int)
    if is_used and window < context:
        raise CheckpointError(
            f"config.json: sliding_window is {window}, supported are only models whose layers see all of the "
            f"{context} positions (sliding_window null or at least that)"
        )


def tensors(config: ModelConfig, stem: str = "model", head: str = "lm_head") -> Iterator[Tensors]:
    """(parameter, the checkpoint's tensors that stack into it with their row counts), both ways.

    In the order of transformers' state dict, by which shards are cut.
    """
    q, kv = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    width, inner = config.hidden_size, config.intermediate_size
    yield "embedding", ((f"{stem}.embed_tokens.weight", config.vocab_size),)
    for i in range(config.n_layers):
        here, there = f"layers.{i}", f"{stem}.layers.{i}"
        for parameter, kind in (("qkv", "weight"), ("qkv_bias", "bias")):
            names = (f"{there}.self_attn.{x}_proj.{kind}" for x in "qkv")
            yield f"{here}.{parameter}", tuple(zip(names, (q, kv, kv), strict=True))
        yield f"{here}.out", ((f"{there}.self_attn.o_proj.weight", width),)
        yield f"{here}.out_bias", ((f"{there}.self_attn.o_proj.bias", width),)
        for x in "qk":
            yield f"{here}.{x}_norm", ((f"{there}.self_attn.{x}_norm.weight", config.head_dim),)
        yield f"{here}.gate_up", tuple((f"{there}.mlp.{x}_proj.weight", inner) for x in ("gate", "up"))
        yield f"{here}.down", ((f"{there}.mlp.down_proj.weight", width),)
        yield f"{here}.input_norm", ((f"{there}.input_layernorm.weight", width),)
        yield f"{here}.post_norm", ((f"{there}.post_attention_layernorm.weight", width),)
    yield "norm", ((f"{stem}.norm.weight", width),)
    yield "head", ((f"{head}.weight", config.vocab_size),)
