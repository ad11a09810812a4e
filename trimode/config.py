"""What a checkpoint says about itself, as frozen values. Knows the fields of config.json, not how a layer uses them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trimode.errors import CheckpointError

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """Rotary positions: `default`, or `yarn` whose attention factor is 1 (mscale = mscale_all_dim)."""

    theta: float
    kind: str = "default"
    factor: float = 1.0
    original_context: int = 0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    query_beta: float = 0.0  # llama-4 query scale: q *= 1 + query_beta * ln(1 + floor(position / original_context))

    def __post_init__(self) -> None:
        where = "config.json: rope_parameters"
        if not 1 < self.theta < math.inf:
            raise CheckpointError(f"{where}: rope_theta is {self.theta}, it must be above 1")
        if (self.kind == "yarn" or self.query_beta) and self.original_context < 1:
            raise CheckpointError(
                f"{where}: original_max_position_embeddings is {self.original_context}, it must be at least 1"
            )
        for name in ("factor", "beta_fast", "beta_slow"):
            if not 0 < getattr(self, name) < math.inf:
                raise CheckpointError(f"{where}: {name} is {getattr(self, name)}, it must be above 0")
        if not 0 <= self.query_beta < math.inf:
            raise CheckpointError(f"{where}: llama_4_scaling_beta is {self.query_beta}, it must be at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Geometry and special ids of a decoder-only transformer that writes in three modes."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    norm_eps: float
    context_length: int
    rope: Rope
    tied: bool
    mask_token_id: int
    eos_token_ids: tuple[int, ...]
    bos_token_id: int | None
    block_size: int
    dtype: str  # of the stored tensors: "bfloat16", "float32" or "float16"

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "intermediate_size", "n_layers", "n_heads", "n_kv_heads",
                     "head_dim", "context_length", "block_size"):  # fmt: skip
            if getattr(self, name) < 1:
                raise CheckpointError(f"config.json: {name} is {getattr(self, name)}, it must be at least 1")
        if self.n_heads % self.n_kv_heads or self.head_dim % 2:
            raise CheckpointError(
                f"config.json: {self.n_heads} heads must be a multiple of {self.n_kv_heads} key heads, "
                f"and head_dim {self.head_dim} must be even"
            )
        if self.dtype not in DTYPES:
            raise CheckpointError(f"config.json: dtype is {self.dtype!r}, known are {', '.join(DTYPES)}")
        if not 0 < self.norm_eps < math.inf:
            raise CheckpointError(f"config.json: rms_norm_eps is {self.norm_eps}, it must be above 0")
        bos = () if self.bos_token_id is None else (self.bos_token_id,)
        for name, ids in (
            ("mask_token_id", (self.mask_token_id,)), ("eos_token_id", self.eos_token_ids), ("bos_token_id", bos)
        ):  # fmt: skip
            for token in ids:
                if type(token) is not int or not 0 <= token < self.vocab_size:
                    raise CheckpointError(
                        f"config.json: {name} is {token!r}, allowed is 0 to {self.vocab_size - 1} (vocab_size - 1)"
                    )


Json = Mapping[str, Any]


def read(fields: Json, name: str, kind: type | tuple[type, ...], where: str = "config.json") -> Any:
    """A required field of the right JSON type, or a sentence that names it."""
    if name not in fields:
        raise CheckpointError(f"{where}: the field {name!r} is missing")
    value = fields[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise CheckpointError(f"{where}: the field {name!r} is {value!r}, which is not of the expected type")
    return value


def read_optional(
    fields: Json, name: str, kind: type | tuple[type, ...], default: Any, where: str = "config.json"
) -> Any:
    """A field that may be absent or null, else of the right JSON type."""
    return default if fields.get(name) is None else read(fields, name, kind, where)
