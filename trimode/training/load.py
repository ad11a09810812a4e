"""What a step of training asks for, by formulas over shapes: parameters, arithmetic, memory. Knows no GPU and no clock.

The arithmetic is that of the algorithm: matrix products only, every row with the keys it sees, nothing counted twice
where activations are recomputed.
"""

from dataclasses import dataclass
from typing import Protocol

import torch

from trimode.config import ModelConfig
from trimode.models.transformer import Transformer
from trimode.numerics.losses import CHUNK
from trimode.options import check_options, option

FLOAT32 = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One stage: steps of `streams` texts of `clean` tokens, each with `noised` rows of canvases over it.

    `masked` is the share of canvas rows that are scored: (B + 1) / 2B where k ~ U{1..B} of B slots are masked.
    `trained`: parameters that learn, for an adapter; None for all.
    """

    steps: int = option(1, "optimiser steps", low=1)
    streams: int = option(512, "texts per step, over all processes", low=1)
    micro: int = option(1, "texts per forward on each process", low=1)
    clean: int = option(4096, "tokens of a text", low=1)
    noised: int = option(4096, "rows of its canvases; 0: autoregression only", low=0)
    block_size: int = option(32, "slots of a canvas", low=1)
    masked: float = option(0.5, "share of the canvas rows that are scored", low=0.0, high=1.0)
    trained: int | None = option(None, "parameters that learn; all where not given", low=1)
    checkpointing: bool = True
    precision: str = option("bfloat16", "of matrix products", choices=("bfloat16", "float32"))

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def rows(self) -> int:
        """Rows of a stream."""
        return self.clean + self.noised

    @property
    def width(self) -> int:
        """Bytes of a number that passes between layers."""
        return 2 if self.precision == "bfloat16" else FLOAT32


class Noised(Protocol):
    """What a load depends on of the noise."""

    @property
    def block_sizes(self) -> tuple[int, ...]: ...
    @property
    def scheme(self) -> str: ...
    @property
    def all_masked_share(self) -> float: ...
    @property
    def views(self) -> int: ...
    @property
    def drafts(self) -> bool: ...


class Staged(Protocol):
    """What a load depends on of a recipe's stage."""

    @property
    def kind(self) -> str: ...
    @property
    def steps(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def streams(self) -> int: ...
    @property
    def micro(self) -> int: ...
    @property
    def precision(self) -> str: ...
    @property
    def activation_checkpointing(self) -> bool: ...
    @property
    def noise(self) -> Noised: ...


def stage_load(stage: Staged, trained: int | None = None) -> Load:
    """The most a stage asks for: its packs full, every token of them a target under canvases of every view."""
    noise = stage.noise
    views = 0 if stage.kind == "ar" else noise.views
    clean = max(stage.rows // (1 + views), 1)
    block = max(noise.block_sizes)
    share = (block + 1) / (2 * block) if noise.scheme == "block" and views < 2 else 0.5
    masked = (
        1.0
        if noise.drafts or stage.kind == "drafter"
        else noise.all_masked_share + (1 - noise.all_masked_share) * share
    )
    return Load(
        steps=stage.steps, streams=stage.streams, micro=stage.micro, clean=clean, noised=stage.rows - clean,
        block_size=block, masked=masked, trained=trained, checkpointing=stage.activation_checkpointing,
        precision=stage.precision,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """How many numbers a model has: in all, in one layer, and in what stands outside the layers."""

    total: int
    layer: int
    outside: int


def count(config: ModelConfig) -> Parameters:
    """By building the network without its numbers."""
    with torch.device("meta"):
        model = Transformer(config)
    total = sum(weight.numel() for weight in model.parameters())
    layer = sum(weight.numel() for weight in model.layers[0].parameters())
    return Parameters(total=total, layer=layer, outside=total - config.n_layers * layer)


def pairs(load: Load) -> float:
    """Query and key pairs of one stream: the clean half is causal; a canvas sees the text before it and itself.

    With whole blocks of B over a text of L tokens these are L (L + 1) / 2, and L (L + B) / 2 for L noised rows.
    """
    return load.clean * (load.clean + 1) / 2 + load.noised * (load.clean + load.block_size) / 2


def flops(config: ModelConfig, load: Load, counted: Parameters) -> dict[str, float]:
    """Of one step, forward and backward: a matrix of n numbers takes 2n per row forward, 2n for the gradient of its
    input, and 2n for its own where it learns."""
    learns = 1.0 if load.trained is None else min(load.trained / counted.total, 1.0)
    vectors = 2 * config.hidden_size + (2 * config.head_dim if config.qk_norm else 0)
    matrices = config.n_layers * (counted.layer - vectors)
    scored = load.clean + load.masked * load.noised
    return {
        "layers": load.streams * load.rows * (4 + 2 * learns) * matrices,
        "attention": load.streams * 12.0 * config.n_layers * config.n_heads * config.head_dim * pairs(load),
        "head": load.streams * scored * (4 + 2 * learns) * config.vocab_size * config.hidden_size,
    }


def memory(config: ModelConfig, load: Load, gpus: int, counted: Parameters) -> dict[str, float]:
    """Bytes on every GPU at the peak of a step, with weights, gradients and AdamW's two moments in float32, sharded.

    What is gathered in the compute precision: two layers (one in use, one on its way) and what stands outside the
    layers, with the gradients of the latter and of one layer, which is reduced in float32. On one GPU nothing is
    gathered, but autocast keeps a copy of every matrix in bfloat16.
    """
    trained = counted.total if load.trained is None else load.trained
    learns = min(trained / counted.total, 1.0)
    gathered = float(load.width * (counted.outside + 2 * counted.layer))
    gathered += learns * (load.width * counted.outside + (load.width + FLOAT32) * counted.layer)
    if gpus == 1:
        gathered = 0.0 if load.precision == "float32" else float(load.width * counted.total)
    return {
        "weights": FLOAT32 * counted.total / gpus,
        "moments": 2 * FLOAT32 * trained / gpus,
        "gradients": FLOAT32 * trained / gpus,
        "gathered": gathered,
        "activations": float(load.micro * load.rows * saved(config, load, FLOAT32 if gpus == 1 else load.width)),
        "logits": CHUNK * config.vocab_size * (load.width + 3 * FLOAT32),  # and their float32 softmax and gradient
    }


def saved(config: ModelConfig, load: Load, stream_width: int) -> int:
    """Bytes that a row keeps for the backward pass, and the largest gradients on their way.

    A layer keeps the inputs of both norms and what these (and the heads' own norms) make before the weight, all in the
    precision of the residual stream, float32 under autocast. In the precision of the products it keeps the normed rows;
    query, key and value before the rotation, query and key after it; the attention's result, with a float32 normaliser
    per head; four rows of the MLP. With checkpointing every layer keeps its input, and one layer at a time the rest.
    """
    width, inner, heads = config.hidden_size, config.intermediate_size, config.n_heads * config.head_dim
    keys = config.n_kv_heads * config.head_dim
    products = 2 * width + (heads + 2 * keys) + (heads + keys) + heads + 4 * inner
    normed = 4 * width + (heads + keys if config.qk_norm else 0)
    layer = stream_width * normed + load.width * products + FLOAT32 * config.n_heads
    passing = load.width * 3 * inner + stream_width * 2 * width
    kept = config.n_layers * stream_width * width + layer if load.checkpointing else config.n_layers * layer
    return kept + stream_width * 3 * width + passing
