"""The keywords of `generate`, `stream` and `chat`, spelled out for whoever types them. Checked where they are used."""

from collections.abc import Sequence
from typing import Literal

from trimode.numerics.parameters import SamplingOptions


class Options(SamplingOptions, total=False):
    """What `generate`, `stream` and `chat` take besides the prompt; a parameter the mode does not have is refused."""

    mode: str  # ar, diffusion, self_speculation (default, where the checkpoint can), prompt_lookup, auto
    adapter: str | None  # the name of one that is loaded; default: none
    max_tokens: int  # default 256
    stop: str | Sequence[str]
    stop_token_ids: Sequence[int]  # these end the text, too
    ignore_eos: bool  # the checkpoint's own do not
    logprobs: int | None  # keep each token's log-probability and so many of the likeliest there, 0 to 20
    prompt_logprobs: int | None  # the same of the prompt
    cache_salt: str  # in an engine that reuses known beginnings, share them only with requests of the same salt
    block_size: int
    confidence_threshold: float | None
    max_denoising_steps: int | None
    anchor: Literal["fused", "canvas", "none", "committed"]
    sub_block_size: int | None  # of checkpoints whose blocks see both ways
    rule: str  # numerics/unmasking.py, RULES
    slots_per_look: int
    factor: float
    remask: Literal["none", "low_confidence"]
    remask_below: float
    ar_weight: float
    placement: Literal["linear", "chained", "pruned", "quadratic"]
    draft_length: int | None
    max_canvases: int
    draft_threshold: float
    verify_above: float | None
    lookup_length: int
    fallback_below: float | None
