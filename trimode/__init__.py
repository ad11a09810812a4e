"""Tri-mode language models: one checkpoint that writes autoregressively, by block diffusion and by self-speculation."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trimode.api import LLM, Completion, Stream, load
    from trimode.errors import CheckpointError, InvalidInput, TrimodeError

__version__ = "0.1.0"
__all__ = [
    "LLM",
    "CheckpointError",
    "Completion",
    "InvalidInput",
    "Stream",
    "TrimodeError",
    "__version__",
    "load",
]
_HOMES = {"trimode.api": ("LLM", "Completion", "Stream", "load")}


def __getattr__(name: str) -> object:
    """Public names on first use, so that `import trimode` and `trimode --help` do not load torch."""
    if name in __all__:
        home = "trimode.api" if name in _HOMES["trimode.api"] else "trimode.errors"
        return getattr(import_module(home), name)
    raise AttributeError(f"module 'trimode' has no attribute {name!r}")
