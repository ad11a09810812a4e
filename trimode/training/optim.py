"""Optimisers and the learning-rate schedule. Knows parameters by shape, not what they mean."""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Peak learning rates: Muon for the matrices of the layers, AdamW for embeddings, head and norms."""

    muon: float
    adam: float


def wsd(step: int, steps: int, warmup: int, decay: int) -> float:
    """Warm-up, stable, decay: a factor in (0, 1], linear up over `warmup` steps, down over the last `decay`."""
    return min(1.0, (step + 1) / max(warmup, 1), (steps - step) / max(decay, 1))


def optimizers(model: nn.Module, rates: Rates) -> list[torch.optim.Optimizer]:
    """[Muon, AdamW], each remembering its peak rate as `peak`."""
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and name.startswith("layers.")]
    rest = [p for name, p in model.named_parameters() if not (p.dim() == 2 and name.startswith("layers."))]
    return [
        torch.optim.Muon([{"params": matrices, "peak": rates.muon}], lr=rates.muon, weight_decay=0.01),
        torch.optim.AdamW(
            [{"params": rest, "peak": rates.adam}],
            lr=rates.adam,
            betas=(0.9, 0.95),
            weight_decay=0.0,
            fused=True,
        ),
    ]


def set_rates(optims: list[torch.optim.Optimizer], factor: float) -> None:
    """Scale every group's peak rate. Mutates the optimisers."""
    for optim in optims:
        for group in optim.param_groups:
            group["lr"] = group["peak"] * factor
