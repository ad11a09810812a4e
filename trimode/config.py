"""What a checkpoint says about itself, as frozen values. Knows the fields of config.json, not how a layer uses them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trimode.errors import CheckpointError

DTYPES = ("float32", "bfloat16", "float16")


ROPES = ("default", "linear", "llama3", "yarn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """Rotary positions, plain or stretched beyond the original context in one of the public ways."""

    theta: float
    kind: str = "default"
    factor: float = 1.0
    original_context: int = 0
    beta_fast: float = 32.0  # yarn
    beta_slow: float = 1.0
    attention_factor: float = 1.0  # yarn: cosines and sines, of queries and keys alike, are multiplied by it
    low_freq_factor: float = 1.0  # llama3
    high_freq_factor: float = 4.0
    query_beta: float = 0.0  # llama-4 query scale: q *= 1 + query_beta * ln(1 + floor(position / original_context))

    def __post_init__(self) -> None:
        where = "config.json: rope_parameters"
        if self.kind not in ROPES:
            raise CheckpointError(f"{where}: rope_type is {self.kind!r}, known are {', '.join(ROPES)}")
        if not 1 < self.theta < math.inf:
            raise CheckpointError(f"{where}: rope_theta is {self.theta}, it must be above 1")
        if (self.kind in ("llama3", "yarn") or self.query_beta) and self.original_context < 1:
            raise CheckpointError(
                f"{where}: original_max_position_embeddings is {self.original_context}, it must be at least 1"
            )
        for name in ("factor", "beta_fast", "beta_slow", "attention_factor", "low_freq_factor", "high_freq_factor"):
            if not 0 < getattr(self, name) < math.inf:
                raise CheckpointError(f"{where}: {name} is {getattr(self, name)}, it must be above 0")
        if not self.low_freq_factor < self.high_freq_factor:
            raise CheckpointError(
                f"{where}: low_freq_factor is {self.low_freq_factor}, it must be below high_freq_factor, "
                f"which is {self.high_freq_factor}"
            )
        if not 0 <= self.query_beta < math.inf:
            raise CheckpointError(f"{where}: llama_4_scaling_beta is {self.query_beta}, it must be at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Geometry and special ids of a decoder-only transformer.

    An ordinary causal checkpoint has no mask and no block; the last two fields vary the rule of who sees whom.
    """

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
    eos_token_ids: tuple[int, ...]
    bos_token_id: int | None
    dtype: str  # of the stored tensors: "bfloat16", "float32" or "float16"
    mask_token_id: int | None = None
    block_size: int | None = None
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: bool = False  # RMS norm of every query and key head before the rotation
    commit_visibility: Literal["causal", "block"] = "causal"  # block: a committed token sees all of its aligned block
    canvas_logits: Literal["own", "shifted"] = "own"  # which slot a canvas row names: its own, or the next

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "hidden_size", "intermediate_size", "n_layers", "n_heads", "n_kv_heads", "head_dim",
                 "context_length")  # fmt: skip
        for name in (*sizes, *(() if self.block_size is None else ("block_size",))):
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
        self._check_ids()
        self._check_blocks()

    @property
    def commit_block(self) -> int:
        """Tokens that are committed together: whole blocks where these see both ways."""
        return self.block_size or 1 if self.commit_visibility == "block" else 1

    def _check_ids(self) -> None:
        mask = () if self.mask_token_id is None else (self.mask_token_id,)
        bos = () if self.bos_token_id is None else (self.bos_token_id,)
        for name, ids in (("mask_token_id", mask), ("eos_token_id", self.eos_token_ids), ("bos_token_id", bos)):
            for token in ids:
                if type(token) is not int or not 0 <= token < self.vocab_size:
                    raise CheckpointError(
                        f"config.json: {name} is {token!r}, allowed is 0 to {self.vocab_size - 1} (vocab_size - 1)"
                    )

    def _check_blocks(self) -> None:
        """Bidirectional commits come in whole blocks; canvases are made of masks."""
        if self.canvas_logits not in ("own", "shifted"):
            raise CheckpointError(f"config.json: canvas_logits is {self.canvas_logits!r}, known are own, shifted")
        if self.canvas_logits == "shifted" and self.mask_token_id is None:
            raise CheckpointError("config.json: canvas_logits is 'shifted', which needs mask_token_id")
        if self.commit_visibility == "block" and (self.mask_token_id is None or self.block_size is None):
            raise CheckpointError("config.json: commit_visibility is 'block', which needs mask_token_id and block_size")


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
