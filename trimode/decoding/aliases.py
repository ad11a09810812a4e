"""Other people's words for our modes and parameters, for the edges: command line, HTTP, files."""

from typing import Any

MODES = {
    "autoregressive": "ar", "dlm": "diffusion", "fastdiffuser": "diffusion", "block_diffusion": "diffusion",
    "self_spec": "self_speculation", "linearspec": "self_speculation", "linear_spec": "self_speculation",
    "speculative": "self_speculation", "ngram": "prompt_lookup", "pld": "prompt_lookup",
    "prompt_lookup_decoding": "prompt_lookup",
}  # fmt: skip
OPTIONS = {
    "diffusion_block_size": "block_size", "block_length": "block_size", "diffusion_steps": "max_denoising_steps",
    "steps": "max_denoising_steps", "threshold": "confidence_threshold", "spec_variant": "placement",
    "draft_block_size": "draft_length",
}  # fmt: skip
PLACEMENTS = {"quad": "quadratic", "quadspec": "quadratic", "linearspec": "linear"}


def canonical_mode(name: str) -> str:
    """Our word for a mode however it is spelled."""
    plain = _plain(name)
    return MODES.get(plain, plain)


def canonical_option(name: str) -> str:
    """Our word for a parameter of a mode."""
    return OPTIONS.get(name, name)


def canonical_placement(name: str) -> str:
    """Our word for where drafts are placed."""
    plain = _plain(name)
    return PLACEMENTS.get(plain, plain)


def meant(item: Any, value: Any) -> Any:
    """The value of a parameter, a decoder's field; where there is no None to write, "none" is one."""
    return None if value == "none" and item.metadata["choices"] is None else value


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", "_")
