"""What a training run will take, computed and never measured: parameters, rows, arithmetic, memory, time.

Every number is a formula over the shapes of the model and of a step. The arithmetic is that of the algorithm: matrix
products only, a causal row counted with the keys it sees, nothing counted twice where activations are recomputed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from trimode.config import ModelConfig
from trimode.errors import InvalidInput
from trimode.models.transformer import Transformer
from trimode.numerics.losses import CHUNK
from trimode.options import check_options, option

# Dense bfloat16 FLOP/s and bytes of memory, from the vendor's data sheets (SXM modules).
GPUS = {"a100": (312e12, 80e9), "h100": (989.4e12, 80e9), "h200": (989.4e12, 141e9)}
FLOAT32 = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the run is planned for; `mfu` is an assumption, to be replaced by what a short run measures."""

    gpus: int = option(1, "GPUs, every one with a process", low=1)
    gpu: str = option("h100", "which", choices=tuple(GPUS))
    mfu: float = option(
        0.4, "share of the peak FLOP/s that the model's arithmetic reaches", low=0.0, high=1.0, is_open=True
    )

    def __post_init__(self) -> None:
        check_options(self)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """How many numbers a model has: in all, in one layer, and in what stands outside the layers."""

    total: int
    layer: int
    outside: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A load on a machine. FLOPs are per step, memory in bytes on every GPU, by what it holds."""

    config: ModelConfig
    load: Load
    machine: Machine
    parameters: Parameters
    flops: Mapping[str, float]
    memory: Mapping[str, float]

    @property
    def tokens(self) -> int:
        """Tokens of text, canvases not counted, in all steps."""
        return self.load.steps * self.tokens_per_step

    @property
    def tokens_per_step(self) -> int:
        return self.load.streams * self.load.clean

    @property
    def accumulation(self) -> int:
        """Forwards of a process per step."""
        return self.load.streams // (self.machine.gpus * self.load.micro)

    @property
    def flops_per_token(self) -> float:
        return sum(self.flops.values()) / self.tokens_per_step

    @property
    def seconds_per_step(self) -> float:
        reached = self.machine.gpus * GPUS[self.machine.gpu][0] * self.machine.mfu
        return sum(self.flops.values()) / reached

    @property
    def seconds(self) -> float:
        return self.load.steps * self.seconds_per_step

    @property
    def is_too_large(self) -> bool:
        return sum(self.memory.values()) > GPUS[self.machine.gpu][1]


def machine(text: str) -> Machine:
    """`gpus=256,gpu=h100,mfu=0.4`, in any order, with commas or spaces between."""
    kinds = {"gpus": int, "gpu": str, "mfu": float}
    given: dict[str, int | str | float] = {}
    for part in text.replace(",", " ").split():
        name, _, value = part.partition("=")
        if name not in kinds:
            raise InvalidInput(f"--plan has {part!r}, allowed are {', '.join(f'{kind}=...' for kind in kinds)}")
        try:
            given[name] = kinds[name](value)
        except ValueError:
            raise InvalidInput(f"--plan has {part!r}, which is not a number") from None
    return Machine(**given)  # type: ignore[arg-type]


def plan(config: ModelConfig, load: Load, machine: Machine) -> Plan:
    """What the load takes on the machine. The streams of a step must divide evenly."""
    share = machine.gpus * load.micro
    if load.streams % share:
        raise InvalidInput(
            f"{load.streams} streams per step do not divide by {machine.gpus} processes x {load.micro} at a time: "
            f"allowed are multiples of {share}"
        )
    counted = count(config)
    return Plan(
        config=config, load=load, machine=machine, parameters=counted,
        flops=flops(config, load, counted), memory=memory(config, load, machine, counted),
    )  # fmt: skip


def count(config: ModelConfig) -> Parameters:
    """By building the network without its numbers."""
    with torch.device("meta"):
        model = Transformer(config)
    total = sum(weight.numel() for weight in model.parameters())
    layer = sum(weight.numel() for weight in model.layers[0].parameters())
    return Parameters(total=total, layer=layer, outside=total - config.n_layers * layer)


def pairs(load: Load) -> float:
    """Query and key pairs of one stream: the clean half is causal; a canvas sees the text before it and itself.

    With whole blocks of B over a text of L tokens, row by row: L (L + 1) / 2, and L (L + B) / 2 for as many noised rows.
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


def memory(config: ModelConfig, load: Load, machine: Machine, counted: Parameters) -> dict[str, float]:
    """Bytes on every GPU at the peak of a step, with weights, gradients and AdamW's two moments in float32, sharded.

    What is gathered in the compute precision: two layers (one in use, one on its way) and what stands outside the
    layers, with the gradients of the latter and of one layer, which is reduced in float32. On one GPU nothing is
    gathered, but autocast keeps a copy of every matrix in bfloat16.
    """
    trained = counted.total if load.trained is None else load.trained
    learns = min(trained / counted.total, 1.0)
    gathered = load.width * (counted.outside + 2 * counted.layer)
    gathered += learns * (load.width * counted.outside + (load.width + FLOAT32) * counted.layer)
    if machine.gpus == 1:
        gathered = 0.0 if load.precision == "float32" else load.width * counted.total
    rows = load.micro * load.rows
    return {
        "weights": FLOAT32 * counted.total / machine.gpus,
        "moments": 2 * FLOAT32 * trained / machine.gpus,
        "gradients": FLOAT32 * trained / machine.gpus,
        "gathered": gathered,
        "activations": rows * load.width * saved(config, load.checkpointing),
        "logits": CHUNK * config.vocab_size * (load.width + 3 * FLOAT32),  # and their float32 softmax and gradient
    }


def saved(config: ModelConfig, checkpointing: bool) -> float:
    """Numbers that a row keeps for the backward pass, and the largest gradients on their way.

    A layer keeps both norms' inputs, their normed rows and those times the weight, query, key and value before the
    rotation, query and key after it, the attention's result and its normaliser, and four rows of the MLP. With
    checkpointing every layer keeps its input, and one at a time the rest.
    """
    width, inner, heads = config.hidden_size, config.intermediate_size, config.n_heads * config.head_dim
    keys = config.n_kv_heads * config.head_dim
    layer = 6 * width + (heads + 2 * keys) + (heads + keys) + heads + config.n_heads + 4 * inner
    if config.qk_norm:
        layer += 2 * (heads + keys)
    passing = 3 * inner + 2 * width
    kept = config.n_layers * width + layer if checkpointing else config.n_layers * layer
    return kept + 3 * width + passing


def table(plan: Plan) -> str:
    """The plan as text, two columns."""
    load, machine, counted = plan.load, plan.machine, plan.parameters
    lines = [
        ("parameters", f"{counted.total / 1e9:.3f} B ({counted.layer / 1e6:.1f} M in each of {plan.config.n_layers} layers)"),
        ("step", f"{load.streams} streams x ({load.clean} text + {load.noised} canvas rows)"),
        ("process", f"{plan.accumulation} forwards of {load.micro} x {load.rows} rows per step"),
        ("tokens", f"{plan.tokens_per_step:,} per step, {_short(plan.tokens)} in {load.steps:,} steps"),
        ("FLOPs", f"{_short(plan.flops_per_token)} per token, {_short(load.steps * sum(plan.flops.values()))} in all"),
        *((f"  {name}", f"{value / sum(plan.flops.values()):.0%}") for name, value in plan.flops.items()),
        ("memory per GPU", f"{sum(plan.memory.values()) / 1e9:.1f} GB of {GPUS[machine.gpu][1] / 1e9:.0f}"),
        *((f"  {name}", f"{value / 1e9:.1f} GB") for name, value in plan.memory.items()),
        ("time", f"{duration(plan.seconds)} on {machine.gpus} x {machine.gpu} at {machine.mfu:.0%} of the peak "
                 f"({plan.seconds_per_step:.3g} s per step, {plan.seconds * machine.gpus / 3600:,.0f} GPU-hours)"),
    ]  # fmt: skip
    if plan.is_too_large:
        lines.append(("", "does not fit: more GPUs, fewer rows at a time, or activation_checkpointing"))
    return "\n".join(f"{name:<16}{text}".rstrip() for name, text in lines) + "\n(computed, not measured)"


def duration(seconds: float) -> str:
    """In the unit a person would choose."""
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.1f} seconds"


def _short(value: float) -> str:
    """Three digits and a power of ten that is a multiple of three."""
    power = 3 * int(math.log10(max(value, 1)) // 3)
    return f"{value / 10**power:.3g}e{power}" if power else f"{value:.3g}"
