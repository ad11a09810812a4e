"""The modes, one file each, and the one table of them. A decoder is a value: `build("ar", config)`."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from functools import cache
from typing import Any

from trimode.config import ModelConfig
from trimode.cost import FLAT, CostModel
from trimode.decoding.auto import Auto
from trimode.decoding.autoregressive import Autoregressive
from trimode.decoding.base import Decoder, Step
from trimode.decoding.block_diffusion import BlockDiffusion
from trimode.decoding.diffusion import Diffusion
from trimode.decoding.prompt_lookup import PromptLookup
from trimode.decoding.self_speculation import SelfSpeculation
from trimode.errors import InvalidInput
from trimode.options import widened


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A decoder's field, of any that have one by its name."""

    type: Any
    default: Any
    metadata: Mapping[str, Any]


MODES: Mapping[str, type[Any]] = {
    "ar": Autoregressive,
    "diffusion": Diffusion,
    "self_speculation": SelfSpeculation,
    "prompt_lookup": PromptLookup,
    "auto": Auto,
}
OWN_MODES = tuple(mode for mode in MODES if mode != "auto")  # which is a choice among others
DEFAULT_MODE = "self_speculation"

__all__ = ["DEFAULT_MODE", "MODES", "OWN_MODES", "Decoder", "Step", "build", "default_mode", "every_option", "options"]


def options(mode: str, config: ModelConfig | None = None) -> dict[str, Any]:
    """The parameters of a mode by name: the dataclass fields that carry a help text."""
    return {item.name: item for item in fields(_kind(mode, config)) if "help" in item.metadata}


@cache
def every_option() -> Mapping[str, Parameter]:
    """The parameters of all modes and kinds of checkpoints by name, each with all that any of them allows."""
    found: dict[str, Parameter] = {}
    for kind in (*MODES.values(), BlockDiffusion):
        for item in (item for item in fields(kind) if "help" in item.metadata):
            before = found.get(item.name)
            metadata = item.metadata if before is None else widened(before.metadata, item.metadata)
            found[item.name] = before or Parameter(type=item.type, default=item.default, metadata=item.metadata)
            found[item.name] = replace(found[item.name], metadata=metadata)
    return found


def default_mode(config: ModelConfig) -> str:
    """The best mode a checkpoint was trained for."""
    if config.mask_token_id is None:
        return "ar"
    return "diffusion" if config.commit_visibility == "block" else DEFAULT_MODE


def build(
    mode: str, config: ModelConfig, cost: CostModel = FLAT, *, ends: tuple[int, ...] | None = None, **chosen: Any
) -> Decoder[Any]:
    """A mode's decoder with the checkpoint's own ids and block size, and the chosen parameters checked.

    `ends`: the tokens that end a text (default: the checkpoint's).

    Raises InvalidInput for an unknown mode, a parameter the mode does not have, or a value out of range.
    """
    if not isinstance(mode, str) or mode not in MODES:
        raise InvalidInput(f"mode is {mode!r}, allowed are {', '.join(MODES)}")
    kind, known = _kind(mode, config), options(mode, config)
    for name in chosen:
        if name not in known:
            allowed = ", ".join(known) or "none"
            raise InvalidInput(f"{name} is not a parameter of mode {mode!r}, its parameters are: {allowed}")
    facts = {
        "mask_token_id": config.mask_token_id,
        "eos_token_ids": config.eos_token_ids if ends is None else ends,
        "block_size": config.block_size,
        "canvas_logits": config.canvas_logits,
        "cost": cost,
    }
    needs = {item.name for item in fields(kind) if item.default is MISSING}
    has = {item.name for item in fields(kind)}  # the checkpoint's and the model's replace the decoder's defaults
    if "mask_token_id" in needs and config.mask_token_id is None:
        raise InvalidInput(
            f"mode {mode!r} needs a mask token; this {config.model_type} checkpoint is an ordinary causal one, "
            "which writes in modes 'ar' and 'prompt_lookup' and needs conversion (trimode convert) for any other"
        )
    if config.commit_visibility == "block" and kind is not BlockDiffusion:
        raise InvalidInput(
            f"mode {mode!r} reads the next token from committed text that sees only what is before it; "
            f"in this {config.model_type} checkpoint committed blocks see both ways, so its one mode is 'diffusion'"
        )
    given = {name: fact for name, fact in facts.items() if name in has and fact is not None}
    decoder: Decoder[Any] = kind(**given | chosen)
    return decoder


def _kind(mode: str, config: ModelConfig | None) -> type[Any]:
    if mode == "diffusion" and config is not None and config.commit_visibility == "block":
        return BlockDiffusion
    return MODES[mode]
