"""Adapters that change much: both matrices random."""

import torch

from trimode.config import ModelConfig
from trimode.models.adapter_config import TARGETS
from trimode.models.adapters import Adapter


def random_adapter(
    config: ModelConfig, seed: int = 0, strength: float = 0.3, targets: tuple[str, ...] = TARGETS, **settings: object
) -> Adapter:
    """Rank 4; B is N(0, strength)."""
    adapter = Adapter.new(config, 4, 8.0, targets, seed, **settings)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for pair in adapter.pairs():
            pair.B.normal_(0.0, strength, generator=generator)
    return adapter.eval().requires_grad_(False)
