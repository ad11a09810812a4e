"""Optimisers and learning-rate schedules. Knows parameters by name and shape, not what they mean."""

import math
from collections.abc import Mapping

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from trimode.errors import InvalidInput
from trimode.training.recipe import Stage

# Muon's steps are equally large in every direction. Without a norm on queries and keys they blow up the attention
# scores until every head looks at one token, so query-key-value then gets AdamW, at half of the others' rate.
MUON = (".out", ".gate_up", ".down")
QKV, QKV_SHARE, QUERY_NORM = ".qkv", 0.5, ".q_norm"
PLAIN = ("embedding", "head")  # matrices by shape, but a row of them is a vector of its own: no weight decay


def rate_factor(stage: Stage, step: int) -> float:
    """Share of the peak rate at step 0, 1, ...: linear warm-up, then the stage's schedule down to `final_share`."""
    decay = {"wsd": round(stage.steps * stage.decay_share), "cosine": stage.steps - stage.warmup, "constant": 0}
    left = min(1.0, (stage.steps - step) / max(decay[stage.schedule], 1))  # 1 until the decay begins, towards 0
    if stage.schedule == "cosine":
        left = (1 - math.cos(math.pi * left)) / 2
    down = stage.final_share + (1 - stage.final_share) * left
    return min((step + 1) / max(stage.warmup, 1), down)


def optimizers(named: Mapping[str, nn.Parameter], stage: Stage) -> list[torch.optim.Optimizer]:
    """The stage's optimisers over the parameters that learn, each group remembering its peak rate as `peak`.

    Muon orthogonalises whole matrices: a parameter of which a process holds only a part is refused.
    """
    if stage.optimizer == "muon" and any(isinstance(weight, DTensor) for weight in named.values()):
        raise InvalidInput(f"stage {stage.name!r}: optimizer is 'muon', which needs whole matrices on one process")
    learning = {name: weight for name, weight in named.items() if weight.requires_grad}
    uses_muon = stage.optimizer == "muon"
    kinds = (*MUON, QKV) if any(name.endswith(QUERY_NORM) for name in named) else MUON
    muon = {name: weight for name, weight in learning.items() if uses_muon and name.endswith(kinds)}
    qkv = {name: weight for name, weight in learning.items() if uses_muon and name.endswith(QKV) and name not in muon}
    rest = {name: weight for name, weight in learning.items() if name not in muon and name not in qkv}
    decayed = [weight for name, weight in rest.items() if weight.dim() > 1 and name not in PLAIN]
    plain = [weight for name, weight in rest.items() if weight.dim() == 1 or name in PLAIN]
    rate, decay = stage.learning_rate, stage.weight_decay
    groups = [
        {"params": list(qkv.values()), "peak": rate * QKV_SHARE, "weight_decay": decay},
        {"params": decayed, "peak": rate, "weight_decay": decay},
        {"params": plain, "peak": rate, "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW([group for group in groups if group["params"]], lr=rate, betas=(0.9, 0.95), fused=True)
    if not muon:
        return [adam]
    peak = stage.muon_learning_rate
    return [torch.optim.Muon([{"params": list(muon.values()), "peak": peak}], lr=peak, weight_decay=0.01), adam]


def set_rates(optims: list[torch.optim.Optimizer], factor: float) -> None:
    """Scale every group's peak rate. Mutates the optimisers."""
    for optim in optims:
        for group in optim.param_groups:
            group["lr"] = group["peak"] * factor
