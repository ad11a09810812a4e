"""Who is compared: ways to continue a prompt, each a function of token ids. Ours are a table; others in their files.

Every system is timed alike, from outside: token ids in, token ids out, prompt included, one request alone.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimode import LLM, load
from trimode.decoding import build
from trimode.errors import TrimodeError
from trimode.models.checkpoint import tensors

VARIANTS: dict[str, dict[str, Any]] = {  # our rows: a name, and the options of `generate`
    "ar": {"mode": "ar"},
    "prompt_lookup": {"mode": "prompt_lookup"},
    "diffusion (fused, 0.9)": {"mode": "diffusion"},
    "diffusion (canvas, 0.9)": {"mode": "diffusion", "anchor": "canvas"},
    "self_speculation": {"mode": "self_speculation"},
    "self_speculation, no lookup": {"mode": "self_speculation", "lookup_length": 0},
    "self_speculation linear": {"mode": "self_speculation", "placement": "linear"},
    "self_speculation chained": {"mode": "self_speculation", "placement": "chained"},
    "self_speculation quadratic": {"mode": "self_speculation", "placement": "quadratic"},
    "self_speculation as released": {
        "mode": "self_speculation",
        "placement": "linear",
        "anchor": "canvas",
        "draft_length": 32,
        "verify_above": 0.0,
        "fallback_below": 0.0,
        "lookup_length": 0,
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A continuation and its cost. drafted: tokens that verify forwards made, for the acceptance length."""

    tokens: tuple[int, ...]
    seconds: float
    forwards: int
    verified: int = 0  # verify forwards
    drafted: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A row of the tables. baseline: the ar row with the same dtype and backend, for the check on every prompt."""

    name: str
    write: Callable[[Sequence[int], int], Answer]
    baseline: str | None = None


def ours(source: str | None, dtypes: Sequence[str], backends: Sequence[str], device: str) -> Iterator[System | str]:
    """Our rows for every dtype and backend, or a sentence for each that is refused."""
    for dtype in dtypes:
        for backend in backends:
            suffix = f"[{dtype}, {backend}]"
            try:
                llm = load(source, dtype=dtype, device=device, backend=backend)
            except TrimodeError as reason:
                yield f"ours {suffix}: {reason}"
                continue
            for name, options in VARIANTS.items():
                try:
                    build(**{"config": llm.model.config, **options})
                except TrimodeError as reason:
                    yield f"{name} {suffix}: {reason}"
                    continue
                baseline = f"ar {suffix}" if options["mode"] in ("self_speculation", "prompt_lookup") else None
                yield System(name=f"{name} {suffix}", write=writer(llm, options), baseline=baseline)


def writer(llm: LLM, options: Mapping[str, Any]) -> Callable[[Sequence[int], int], Answer]:
    """One of our modes as a function of token ids; its time includes detokenizing."""

    def write(prompt: Sequence[int], max_tokens: int) -> Answer:
        chosen: dict[str, Any] = dict(options) | {"temperature": 0.0, "max_tokens": max_tokens}
        start = time.perf_counter()
        done = llm.generate(list(prompt), **chosen)
        seconds = time.perf_counter() - start
        verified = done.forwards.get("verify", 0)
        return Answer(
            tokens=tuple(done.token_ids), seconds=seconds, forwards=done.forwards["total"], verified=verified,
            drafted=round((done.acceptance_length or 0.0) * verified),
        )  # fmt: skip

    return write


def stored(model: Any) -> dict[str, Any]:
    """The model's tensors under the checkpoint's names, views of the parameters; a tied head is not repeated."""
    parameters = dict(model.named_parameters())
    state: dict[str, Any] = {}
    for parameter, pieces in tensors(model.config):
        if parameter in parameters:
            rows = parameters[parameter].detach().split([n for _, n in pieces])
            state.update((name, row) for (name, _), row in zip(pieces, rows, strict=True))
    return state
