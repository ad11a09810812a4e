"""lm-evaluation-harness's words for options, as ours: generation_kwargs, batch sizes, flags. Runs nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from trimode.errors import InvalidInput
from trimode.numerics.parameters import PARAMETERS

AUTO = 64  # requests in an engine for batch_size=auto
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # the first given holds


def generation_options(given: Mapping[str, Any], max_gen_toks: int) -> dict[str, Any]:
    """lm-eval's generation_kwargs as options of `LLM.generate`. Greedy unless a temperature is given.

    Raises InvalidInput for a name that is not known, or `do_sample` without a temperature.
    """
    for name in given:
        if name not in (*LENGTHS, "until", "do_sample", *PARAMETERS):
            allowed = ", ".join(("until", "max_gen_toks", "do_sample", *PARAMETERS))
            raise InvalidInput(f"generation_kwargs holds {name!r}, allowed are {allowed}")
    until = given.get("until") or []
    lengths = [given[name] for name in LENGTHS if given.get(name) is not None]
    options = {name: value for name, value in given.items() if name in PARAMETERS}
    temperature, do_sample = options.get("temperature") or 0.0, given.get("do_sample")
    if do_sample and temperature == 0:
        raise InvalidInput("generation_kwargs asks for do_sample with no temperature, allowed is one above 0")
    options["temperature"] = 0.0 if do_sample is False else temperature
    stop = [text for text in ([until] if isinstance(until, str) else until) if text != ""]
    return {**options, "stop": stop, "max_tokens": lengths[0] if lengths else max_gen_toks}


def requests_at_once(batch_size: int | str, most: int | None) -> int:
    """lm-eval's batch sizes: a number, its digits, or `auto`."""
    if str(batch_size).startswith("auto"):
        return most or AUTO
    if not str(batch_size).isdecimal() or int(batch_size) < 1:
        raise InvalidInput(f"batch_size is {batch_size!r}, allowed is auto, or at least 1")
    return int(batch_size)


def device_here(device: str | None) -> str | None:
    """lm-eval says cuda:0 where its user says nothing; its own models then take what there is, and so do we."""
    return None if device == "cuda:0" and not torch.cuda.is_available() else device


def check_flags(**flags: Any) -> None:
    """lm-eval reads true and false, and leaves other words as they are."""
    for name, value in flags.items():
        if value not in (None, True, False):
            raise InvalidInput(f"{name} is {value!r}, allowed are true and false")


def new_file(path: Path) -> Path:
    """A file that is not there yet, and can be."""
    if path.exists() or not path.parent.is_dir():
        raise InvalidInput(f"stats is {path}, allowed is a new file in a folder that is there")
    return path
