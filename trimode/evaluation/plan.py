"""What an evaluation is to do, as frozen values: tasks, modes with their options, limits. Runs nothing.

A mode is spelled `diffusion` or `self_speculation:placement=linear,draft_length=16`; the spelling, with its options in
order, names it in records and tables.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from trimode.config import ModelConfig
from trimode.decoding import MODES, OWN_MODES, build, options
from trimode.errors import InvalidInput
from trimode.numerics.parameters import PARAMETERS
from trimode.options import check_options, option

SWEEP = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # confidence thresholds of --threshold-sweep
NUMBERS = (int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeSpec:
    """A mode with the options that are not its defaults."""

    mode: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The one spelling: options in order of their names."""
        chosen = ",".join(f"{key}={_spelled(self.options[key])}" for key in sorted(self.options))
        return f"{self.mode}:{chosen}" if chosen else self.mode


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """An evaluation. Its items follow from tasks, limit, seed and chat; greedy unless a mode says otherwise."""

    tasks: tuple[str, ...] = ("procedural",)
    modes: tuple[str, ...] = ()  # spelled as above; none: every mode the checkpoint has
    limit: int | None = option(50, "items per task; None: all of a published set", low=1, optional=True)
    seed: int = option(1000, "of the items, training uses 0", low=0)
    batch: int = option(1, "requests in one engine at once; speeds are then those of the batch", low=1)
    repeats: int = option(1, "every answer is timed so often", low=1)
    max_tokens: int | None = option(None, "tokens of an answer at most (default: what its task asks for)", low=1)
    adapter: str | None = None  # name of a loaded one, on in every answer; a loaded drafter drafts in any case
    chat: bool = False  # prompts as turns of a conversation
    threshold_sweep: bool = False  # diffusion at every threshold of SWEEP as well
    likelihood: bool = True  # of the reference answers
    block_sizes: tuple[int, ...] = ()  # of the NELBO; none: the checkpoint's own
    draws: int = option(4, "masks drawn per reference answer for its NELBO", low=1)
    plots: bool = False
    data_dir: Path | None = None
    allow_unsandboxed: bool = False

    def __post_init__(self) -> None:
        check_options(self)
        for name in ("tasks", "modes"):
            if isinstance(getattr(self, name), str):
                raise InvalidInput(f"{name} is {getattr(self, name)!r}, allowed is a tuple of names")
        if not self.tasks:
            raise InvalidInput("no task was named, at least one is needed")
        if any(type(size) is not int or size < 1 for size in self.block_sizes):
            raise InvalidInput(f"block_sizes is {self.block_sizes!r}, allowed are integers of at least 1")


def specs(plan: Plan, config: ModelConfig) -> list[ModeSpec]:
    """The modes of a plan, each once, in order, all of them buildable for this checkpoint.

    Raises InvalidInput for an unknown mode, an option it does not have, a value of another type or out of range.
    """
    chosen = list(plan.modes) or [mode for mode in OWN_MODES if _can(mode, config)]
    if plan.threshold_sweep:
        chosen += [f"diffusion:confidence_threshold={threshold}" for threshold in SWEEP]
    found = {spec.name: spec for spec in (parse_mode(text, config) for text in chosen)}
    for spec in found.values():
        build(spec.mode, config, **{key: v for key, v in spec.options.items() if key not in PARAMETERS})
    return list(found.values())


def bound_sizes(plan: Plan, config: ModelConfig) -> tuple[int, ...]:
    """Block sizes of the NELBO. Raises InvalidInput for one the context cannot hold: its canvases would fill memory."""
    sizes = plan.block_sizes or (config.block_size or 1,)
    if max(sizes) > config.context_length:
        raise InvalidInput(f"a block size of the NELBO is {max(sizes)}, allowed is 1 to {config.context_length}")
    return sizes


def parse_mode(text: str, config: ModelConfig | None = None) -> ModeSpec:
    """`MODE` or `MODE:name=value,name=value`, values by the types of the mode's (or the sampling's) own fields."""
    mode, _, rest = text.strip().partition(":")
    if mode not in MODES:
        raise InvalidInput(f"mode is {mode!r}, allowed are {', '.join(MODES)}")
    known = options(mode, config)
    found: dict[str, Any] = {}
    for part in filter(None, map(str.strip, rest.split(","))):
        name, sign, value = (piece.strip() for piece in part.partition("="))
        name = name.replace("-", "_")
        if not sign or name in found:
            raise InvalidInput(f"mode {text!r}: {part!r} is {'there twice' if sign else 'not name=value'}")
        field_of = known.get(name) or PARAMETERS.get(name)
        if field_of is None:
            raise InvalidInput(f"{name} is not a parameter of mode {mode!r}, its parameters are: {', '.join(known)}")
        found[name] = typed(name, value, field_of.type)
    return ModeSpec(mode=mode, options=found)


def typed(name: str, text: str, kind: Any) -> Any:
    """A text as the type a field declares: int, float, str, and None where the type has it."""
    kinds = get_args(kind) or (kind,)
    if text.lower() == "none" and NoneType in kinds:
        return None
    if str in kinds:
        return text
    for number in NUMBERS:  # a whole number first, so that 1 stays 1 for an int and becomes 1.0 for a float
        if number in kinds:
            try:
                return number(text)
            except ValueError:
                raise InvalidInput(f"{name} is {text!r}, allowed is {_article(number)}") from None
    raise InvalidInput(f"{name} cannot be given with a mode here, only numbers and words can")


def split_modes(text: str) -> list[str]:
    """`ar,diffusion:a=1,b=2` -> [`ar`, `diffusion:a=1,b=2`]: a part with `=` and no `:` belongs to the one before."""
    found: list[str] = []
    for part in filter(None, map(str.strip, text.split(","))):
        if found and "=" in part and ":" not in part.partition("=")[0]:
            found[-1] += f",{part}"
        else:
            found.append(part)
    return found


def split_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names given one by one or with commas between them."""
    return tuple(name for text in names for name in map(str.strip, text.split(",")) if name)


def _can(mode: str, config: ModelConfig) -> bool:
    try:
        build(mode, config)
    except InvalidInput:
        return False
    return True


def _article(kind: type) -> str:
    return "a whole number" if kind is int else "a number"


def _spelled(value: Any) -> str:
    return "none" if value is None else str(value)
