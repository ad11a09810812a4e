"""What a training run will take, computed and never measured: parameters, rows, arithmetic, memory, time.

Time is the arithmetic of all steps (`load.flops`) at an assumed share of the GPUs' peak.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from trimode.config import ModelConfig
from trimode.errors import InvalidInput
from trimode.options import check_options, option
from trimode.training.load import Load, Parameters, count, flops, memory

# Dense bfloat16 FLOP/s and bytes of memory, from the vendor's data sheets (SXM modules).
GPUS = {"a100": (312e12, 80e9), "h100": (989.4e12, 80e9), "h200": (989.4e12, 141e9)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the run is planned for; `mfu` is an assumption, to be replaced by what a short run measures."""

    gpus: int = option(1, "GPUs, every one with a process", low=1)
    gpu: str = option("h100", "which of the table, unless `measured`")
    mfu: float = option(
        0.4, "share of the peak FLOP/s that the model's arithmetic reaches", low=0.0, high=1.0, is_open=True
    )

    measured: tuple[float, float] | None = None  # FLOP/s and bytes, of this machine

    def __post_init__(self) -> None:
        check_options(self)
        if self.measured is None and self.gpu not in GPUS:
            raise InvalidInput(f"gpu is {self.gpu!r}, allowed are {', '.join(GPUS)}")

    @property
    def peak(self) -> float:
        """FLOP/s of one."""
        return self.measured[0] if self.measured else GPUS[self.gpu][0]

    @property
    def capacity(self) -> float:
        """Bytes of one."""
        return self.measured[1] if self.measured else GPUS[self.gpu][1]


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
        reached = self.machine.gpus * self.machine.peak * self.machine.mfu
        return sum(self.flops.values()) / reached

    @property
    def seconds(self) -> float:
        return self.load.steps * self.seconds_per_step

    @property
    def is_too_large(self) -> bool:
        return sum(self.memory.values()) > self.machine.capacity


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
        flops=flops(config, load, counted), memory=memory(config, load, machine.gpus, counted),
    )  # fmt: skip


def table(plan: Plan) -> str:
    """The plan as text, two columns."""
    load, machine, counted = plan.load, plan.machine, plan.parameters
    total, hours = sum(plan.memory.values()), plan.seconds * machine.gpus / 3600
    each = "" if machine.measured else f", {hours:,.0f} GPU-hours"
    lines = [
        ("parameters", f"{counted.total:,}, of them {counted.layer:,} in each of {plan.config.n_layers} layers"),
        ("step", f"{load.streams} streams x ({load.clean} text + {load.noised} canvas rows)"),
        ("process", f"{plan.accumulation} forwards of {load.micro} x {load.rows} rows per step"),
        ("tokens", f"{plan.tokens_per_step:,} per step, {_short(plan.tokens)} in {load.steps:,} steps"),
        ("FLOPs", f"{_short(plan.flops_per_token)} per token, {_short(load.steps * sum(plan.flops.values()))} in all"),
        *((f"  {name}", f"{value / sum(plan.flops.values()):.0%}") for name, value in plan.flops.items()),
        ("memory" if machine.measured else "memory per GPU", f"{_bytes(total)} of {machine.capacity / 1e9:.0f} GB"),
        *((f"  {name}", _bytes(value)) for name, value in plan.memory.items()),
        ("time", f"{duration(plan.seconds)} on {machine.gpus} x {machine.gpu} at {machine.mfu:.0%} of the peak "
                 f"({plan.seconds_per_step:.3g} s per step{each})"),
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


def _bytes(value: float) -> str:
    return f"{value / 1e9:.1f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"


def _short(value: float) -> str:
    """Three digits and a power of ten that is a multiple of three."""
    value = float(f"{value:.3g}")
    power = 3 * int(math.log10(max(value, 1)) // 3)
    return f"{value / 10**power:.4g}e{power}" if power else f"{value:g}"
