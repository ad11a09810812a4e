"""Optimisers and the learning-rate schedule. Knows parameters by shape, not what they mean."""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Peak learning rates: Muon for the matrices of the layers, AdamW for query-key-value, embeddings, head and norms.

    Muon's steps are equally large in every direction; without a norm on queries and keys, which this family does not
    have, they blow up the attention scores until every head looks at one token (see LOG.md), so qkv gets AdamW.
    """

    muon: float
    qkv: float
    adam: float


def wsd(step: int, steps: int, warmup: int, decay: int) -> float:
    """Warm-up, stable, decay: a factor in (0, 1], linear up over `warmup` steps, down over the last `decay`."""
    return min(1.0, (step + 1) / max(warmup, 1), (steps - step) / max(decay, 1))


def optimizers(model: nn.Module, rates: Rates) -> list[torch.optim.Optimizer]:
    """[Muon, AdamW], each group remembering its peak rate as `peak`."""
    named = dict(model.named_parameters())
    qkv = [p for name, p in named.items() if name.endswith(".qkv")]
    matrices = [p for name, p in named.items() if name.endswith((".out", ".gate_up", ".down"))]
    known = {id(p) for p in qkv + matrices}
    rest = [p for p in named.values() if id(p) not in known]
    groups = [
        {"params": qkv, "peak": rates.qkv, "weight_decay": 0.1},
        {"params": rest, "peak": rates.adam, "weight_decay": 0.0},
    ]
    return [
        torch.optim.Muon([{"params": matrices, "peak": rates.muon}], lr=rates.muon, weight_decay=0.01),
        torch.optim.AdamW(groups, lr=rates.adam, betas=(0.9, 0.95), fused=True),
    ]


def set_rates(optims: list[torch.optim.Optimizer], factor: float) -> None:
    """Scale every group's peak rate. Mutates the optimisers."""
    for optim in optims:
        for group in optim.param_groups:
            group["lr"] = group["peak"] * factor
