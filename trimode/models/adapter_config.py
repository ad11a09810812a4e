"""What an adapter is, as a frozen value, and adapter_config.json in peft's own words, both ways. Knows no tensors.

LoRA (arXiv 2106.09685) adds scale * B(A(x)) to a projection; scale is alpha / r, or alpha / sqrt(r) (rsLoRA, arXiv
2312.03732).
"""

import math
import re
from dataclasses import dataclass
from typing import Any

from trimode.config import Json, read, read_optional
from trimode.errors import CheckpointError, InvalidInput
from trimode.options import check_options, option

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
FILE = "adapter_config.json"
Pattern = tuple[tuple[str, float], ...]  # (a module's name or its end, its own number), the first that fits holds

READ = ("peft_type", "r", "lora_alpha", "target_modules", "use_rslora", "lora_dropout", "rank_pattern", "alpha_pattern",
        "bias", "init_lora_weights")  # fmt: skip
IDLE = ("auto_mapping", "base_model_name_or_path", "eva_config", "inference_mode", "megatron_core", "peft_version",
        "qalora_group_size", "revision", "runtime_config", "task_type")  # fmt: skip
STARTS = ("gaussian", "eva", "orthogonal")  # beside true and false, ways to begin that leave the base weights alone
REASONS = {
    "use_dora": "DoRA rescales whole columns of the weights",
    "modules_to_save": "it replaces whole modules, which cannot be chosen per request",
    "lora_bias": "there is no bias in the change",
    "trainable_token_indices": "it replaces rows of the embedding",
    "layers_to_transform": "name the modules in target_modules instead",
    "exclude_modules": "name the modules in target_modules instead",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterConfig:
    """Rank, scale and place of the changes. A target is a module's name or the end of it, as in peft."""

    rank: int = option(16, "rank of every change", low=1)
    alpha: float = option(32.0, "numerator of the scale", low=0.0, is_open=True)
    targets: tuple[str, ...] = TARGETS
    use_rslora: bool = False
    dropout: float = option(0.0, "share of a change's inputs dropped in training", low=0.0, high=0.999)
    rank_pattern: Pattern = ()
    alpha_pattern: Pattern = ()
    draft: bool = False  # holds for the rows of drafts alone

    def __post_init__(self) -> None:
        check_options(self)
        if not self.targets:
            raise InvalidInput(f"targets are empty, allowed are {', '.join(TARGETS)}")
        if not math.isfinite(self.alpha):
            raise InvalidInput(f"alpha is {self.alpha}, allowed is a finite number")

    def covers(self, path: str) -> bool:
        """Whether a module is one of the targets."""
        return any(_fits(target, path) for target in self.targets)

    def rank_of(self, path: str) -> int:
        """A module's rank: its own, or that of all."""
        return int(_own(self.rank_pattern, path, self.rank))

    def scale_of(self, path: str) -> float:
        """What a module's B(A(x)) is multiplied by."""
        rank = self.rank_of(path)
        return _own(self.alpha_pattern, path, self.alpha) / (rank**0.5 if self.use_rslora else rank)


def _fits(name: str, path: str) -> bool:
    return path == name or path.endswith("." + name)


def _own(pattern: Pattern, path: str, default: float) -> float:
    return next((number for name, number in pattern if _fits(name, path)), default)


def parse(fields: Json, draft: bool) -> AdapterConfig:
    """adapter_config.json -> AdapterConfig.

    Raises CheckpointError for what is not LoRA, not supported, or out of range. A field unknown here passes only where
    it is off: peft adds one with every new method.
    """
    if fields.get("peft_type") != "LORA":
        raise CheckpointError(f"{FILE}: peft_type is {fields.get('peft_type')!r}, supported is 'LORA'")
    if fields.get("bias", "none") != "none":
        raise CheckpointError(f"{FILE}: bias is {fields['bias']!r}, supported is 'none': biases stay those of the base")
    start = fields.get("init_lora_weights")
    if start is not None and not isinstance(start, bool) and start not in STARTS:
        raise CheckpointError(f"{FILE}: init_lora_weights is {start!r}, which also changes the weights of the base")
    for name, value in fields.items():
        if value and name not in READ + IDLE:
            reason = REASONS.get(name, "what it does is not known here")
            raise CheckpointError(f"{FILE}: {name} is {value!r:.60}, which is not supported: {reason}")
    try:
        return AdapterConfig(
            rank=read(fields, "r", int, FILE),
            alpha=read_optional(fields, "lora_alpha", (int, float), 8, FILE),
            targets=_targets(fields.get("target_modules")),
            use_rslora=read_optional(fields, "use_rslora", bool, False, FILE),
            dropout=read_optional(fields, "lora_dropout", (int, float), 0.0, FILE),
            rank_pattern=_pattern(fields, "rank_pattern", int),
            alpha_pattern=_pattern(fields, "alpha_pattern", (int, float)),
            draft=draft,
        )
    except InvalidInput as error:
        raise CheckpointError(f"{FILE}: {error}") from None


def spell(config: AdapterConfig, base: str) -> dict[str, Any]:
    """AdapterConfig -> the fields of adapter_config.json; `base` is the name of the model it is for."""
    return {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "inference_mode": True,
        "r": config.rank, "lora_alpha": _plain(config.alpha), "target_modules": list(config.targets),
        "use_rslora": config.use_rslora, "lora_dropout": config.dropout, "bias": "none", "fan_in_fan_out": False,
        "init_lora_weights": True, "modules_to_save": None, "rank_pattern": dict(config.rank_pattern),
        "alpha_pattern": {name: _plain(number) for name, number in config.alpha_pattern},
    }  # fmt: skip


def _plain(number: float) -> float:
    return int(number) if number == int(number) else number


def _targets(given: object) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        raise CheckpointError(f"{FILE}: target_modules is {given!r:.60}, a list of names of modules is expected")
    return tuple(sorted(given))


def _pattern(fields: Json, name: str, kind: type | tuple[type, ...]) -> Pattern:
    """Plain names only: peft takes them for regular expressions, and one from a stranger's file can run for ever."""
    given = read_optional(fields, name, dict, {}, FILE)
    for module in given:
        if not re.fullmatch(r"[\w.]+", module):
            raise CheckpointError(f"{FILE}: {name} names {module!r:.60}, supported are names of modules without signs")
        if not 0 < read(given, module, kind, f"{FILE}: {name}") < math.inf:
            raise CheckpointError(f"{FILE}: {name} gives {module} the number {given[module]}, allowed is above 0")
    return tuple(given.items())
