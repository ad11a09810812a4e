"""The flags verbs share, and the way from flags to options. Help texts and names come from the decoders' own fields."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trimode.decoding import MODES, every_option, options
from trimode.decoding.aliases import canonical_mode
from trimode.errors import InvalidInput
from trimode.numerics.parameters import PARAMETERS

if TYPE_CHECKING:
    from trimode.api import LLM

KINDS: dict[Any, type] = {int: int, int | None: int, float: float, float | None: float}


def _help(name: str) -> str:
    """A decoder field's help, what it may be, and the modes that have it."""
    modes = [mode for mode in MODES if name in options(mode)]
    texts = {mode: _fact(mode, name) for mode in modes}
    if len(set(texts.values())) == 1:
        return f"{texts[modes[0]]} [{', '.join(modes)}]"
    return "; ".join(f"{text} [{mode}]" for mode, text in texts.items())


def _fact(mode: str, name: str) -> str:
    facts = options(mode)[name].metadata
    return f"{facts['help']}: {', '.join(facts['choices'])}" if facts["choices"] else str(facts["help"])


Model = Annotated[str | None, typer.Option(help="Checkpoint folder or Hub id (default: the bundled model).")]
Mode = Annotated[str | None, typer.Option(help=f"One of {', '.join(MODES)} (default: the checkpoint's best).")]
MaxTokens = Annotated[int, typer.Option(help="Tokens to write at most.")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16 (default: float32 on CPU).")]
Backend = Annotated[str, typer.Option(help="auto, native (compiled here, for CPUs) or torch.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, ... (default: cuda where there is one).")]
Adapter = Annotated[
    list[str] | None,
    typer.Option(
        help="NAME=FOLDER of an adapter in peft's format; may be given several times, the first is used where a line "
        "of --input names no other.",
    ),
]
Drafter = Annotated[str | None, typer.Option(help="Folder of an adapter for the drafts of self_speculation.")]
Stop = Annotated[list[str] | None, typer.Option(help="End before this text; may be given several times.")]


def with_options(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb with a flag for each parameter of any mode and of `Sampling`, in place of its own `**chosen`.

    Those given reach it.
    """
    made = mode_flags() | {name: _sampling_flag(name) for name in PARAMETERS}

    @wraps(verb)
    def run(**given: Any) -> None:
        verb(**{name: value for name, value in given.items() if name not in made or value not in (None, [])})

    own = [p for p in inspect.signature(verb).parameters.values() if p.kind is not p.VAR_KEYWORD]
    extra = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=a) for n, a in made.items()]
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + extra
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def mode_flags(more_names: Mapping[str, Sequence[str]] = MappingProxyType({})) -> dict[str, Any]:
    """A flag for each parameter of any mode; `more_names` are further spellings."""
    return {name: _mode_flag(name, item, more_names.get(name, ())) for name, item in every_option().items()}


def _mode_flag(name: str, item: Any, more_names: Sequence[str]) -> Any:
    """A number, a word, or a number that may be `none`."""
    may_be_none = item.metadata["optional"] and item.default is not None
    kind = str if may_be_none else KINDS.get(item.type, str)
    return Annotated[kind | None, _option(name, _help(name), "Mode", more_names)]


def _sampling_flag(name: str) -> Any:
    """A number, several numbers, or several texts (--logit-bias 42=-5)."""
    item = PARAMETERS[name]
    lists: dict[Any, Any] = {tuple[int, ...]: list[int]}
    kind = KINDS[item.type] | None if item.type in KINDS else lists.get(item.type, list[str])
    return Annotated[kind, _option(name, item.metadata["help"], "Sampling")]


def _option(name: str, text: str, panel: str, more_names: Sequence[str] = ()) -> Any:
    words = ("--" + name.replace("_", "-"), *more_names)
    return typer.Option(*words, help=text, rich_help_panel=panel, show_default=False)


def chosen(mode: str | None, **flags: Any) -> dict[str, Any]:
    """The options of `LLM.generate` from flags: those not given are left out, so that each mode's defaults hold."""
    picked = with_numbers({name: value for name, value in flags.items() if value not in (None, [])})
    if "logit_bias" in picked:
        picked["logit_bias"] = dict(_bias(text) for text in picked["logit_bias"])
    return picked if mode is None else {"mode": canonical_mode(mode), **picked}


def with_numbers(picked: Mapping[str, Any]) -> dict[str, Any]:
    """The same, with numbers (or None, for `none`) where flags hold texts for them."""
    known = every_option()
    are_numbers = {name for name, item in known.items() if item.metadata["choices"] is None}
    return {
        name: _number_or_none(name, value) if name in are_numbers and isinstance(value, str) else value
        for name, value in picked.items()
    }


def load_adapters(llm: "LLM", adapters: list[str] | None, drafter: str | None) -> dict[str, str]:
    """Load what --adapter and --drafter name -> the option that chooses the first adapter, if there is one."""
    if drafter is not None:
        llm.load_drafter(drafter)
    names = []
    for text in adapters or []:
        name, sign, folder = text.partition("=")
        names.append(llm.load_adapter(folder, name) if sign else llm.load_adapter(text))
    return {"adapter": names[0]} if names else {}


def _bias(text: str) -> tuple[str, float]:
    token, _, bias = text.partition("=")
    try:
        return token, float(bias)
    except ValueError:
        raise InvalidInput(f"logit_bias is {text!r}, allowed is ID=BIAS, such as 42=-5") from None


def _number_or_none(name: str, text: str) -> float | None:
    if text.lower() == "none":
        return None
    try:
        return float(text)
    except ValueError:
        raise InvalidInput(f"{name} is {text!r}, allowed is a number, or none") from None


__all__ = ["canonical_mode", "chosen", "load_adapters", "mode_flags", "with_numbers", "with_options"]
