"""`trimode serve`: an OpenAI-compatible endpoint. Its flags are the fields of `Settings` and those of the modes."""

import inspect
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from trimode.cli.flags import mode_flags, with_numbers
from trimode.decoding.aliases import OPTIONS, canonical_placement
from trimode.errors import InvalidInput
from trimode.server.settings import NAMES, PREFIX, gather

SPELLINGS = {
    "model": ("--model", "--model-path"), "api_key": ("--api-key",), "generation_mode": ("--generation-mode", "--mode"),
}  # fmt: skip
Model = Annotated[str | None, typer.Argument(help="Checkpoint folder or Hub id (default: the bundled model).")]
Config = Annotated[
    Path | None, typer.Option(help="A TOML file with settings; a table `decoding` holds those of modes.")
]


def serve(source: str | None, config: Path | None, tp: int, trust_remote_code: bool, **given: Any) -> None:
    """Serve a model over HTTP, as OpenAI does, with a mode per request."""
    check_foreign(tp, trust_remote_code)
    try:
        from trimode.server.serving import serve as run
    except ModuleNotFoundError as error:
        raise InvalidInput(f"{error.name} is not installed: pip install 'trimode[server]'") from None

    flags = {name: given.get(name) for name in NAMES}
    if source is not None and flags["model"] is not None:
        raise InvalidInput("the model is given twice, as an argument and as --model")
    flags["model"] = source or flags["model"]
    decoding = {name: value for name, value in given.items() if name not in NAMES and value is not None}
    if "placement" in decoding:
        decoding["placement"] = canonical_placement(decoding["placement"])
    settings = gather(flags | {"decoding": with_numbers(decoding)}, os.environ, config)
    run(settings, lambda text: print(text, file=sys.stderr, flush=True))


def check_foreign(tp: int, trust_remote_code: bool) -> None:
    """Flags of other servers that cannot mean here what they mean there."""
    if tp != 1:
        raise InvalidInput(f"tp is {tp}, allowed is 1: a model runs on one device")
    if trust_remote_code:
        raise InvalidInput("trimode has its own models and runs no code of a checkpoint: leave --trust-remote-code out")


def _signature() -> inspect.Signature:
    """The verb's flags in the order of help."""

    def parameter(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)

    foreign = {
        "tp": parameter("tp", Annotated[int, typer.Option("--tp", "--tp-size", hidden=True)], 1),
        "trust_remote_code": parameter("trust_remote_code", Annotated[bool, typer.Option(hidden=True)], False),
    }
    own = [parameter(name, _flag(name)) for name in NAMES]
    modes = [parameter(name, flag) for name, flag in mode_flags(spellings()).items()]
    return inspect.Signature([parameter("source", Model), parameter("config", Config), *own, *modes, *foreign.values()])


def spellings() -> dict[str, tuple[str, ...]]:
    """More names for the parameters of modes: other people's words for them."""
    found: dict[str, tuple[str, ...]] = {}
    for theirs, ours in OPTIONS.items():
        found[ours] = (*found.get(ours, ()), "--" + theirs.replace("_", "-"))
    return found


def _flag(name: str) -> Any:
    item: Any = NAMES[name]
    kind = item.type if item.type not in (bool, int, float, str) else item.type | None
    words = SPELLINGS.get(name, ("--" + name.replace("_", "-"),))
    shown = "" if item.default is None else f", default {item.default}" if item.type is not bool else ""
    return Annotated[kind, typer.Option(*words, help=f"{item.metadata['help']}{shown} ({PREFIX}{name.upper()})",
                                        show_default=False)]  # fmt: skip


serve.__signature__ = _signature()  # type: ignore[attr-defined]
serve.__annotations__ = {p.name: p.annotation for p in serve.__signature__.parameters.values()}  # type: ignore[attr-defined]
