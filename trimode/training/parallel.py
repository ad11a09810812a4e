"""Which processes train together, on which device, and who holds which part of the weights. Knows no data and no loss.

One process holds its model whole, without a process group: DTensors, hooks and copies would cost a laptop time and
memory and give it nothing, Muon needs whole matrices, and all that differs stands in this file. Several processes
(torchrun) shard by FSDP2: a group per layer, and one for embedding, final norm and head.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from trimode.models.checkpoint import find_device
from trimode.models.transformer import Model
from trimode.training.batch import Batch
from trimode.training.objectives import Objective


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """This process among those of the run; `mesh` is None where it is the only one."""

    rank: int
    size: int
    device: torch.device
    mesh: DeviceMesh | None = None

    def total(self, values: Sequence[float]) -> list[float]:
        """Each value summed over all processes, in float64. Collective."""
        if self.mesh is None:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        return cast(list[float], sums.tolist())


@contextmanager
def joined(device: str | None = None) -> Iterator[World]:
    """The world that torchrun describes, else this process alone. The only place that chooses device and backend."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(rank=0, size=1, device=find_device(device))
        return
    place = find_device(device)
    if place.type == "cuda":
        place = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(place)
    dist.init_process_group("cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo")
    try:
        mesh = init_device_mesh(place.type, (size,))
        yield World(rank=dist.get_rank(), size=size, device=place, mesh=mesh)
        dist.barrier()  # none leaves while another still talks to it; after an error there is nobody to wait for
    finally:
        dist.destroy_process_group()


class Root(nn.Module):
    """A model under its objective: head and loss run inside one forward, which is the root of what is sharded."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self.objective.sums(cast(Model, self.model), batch)


def shard(root: Root, layers: Sequence[nn.Module], world: World, precision: str) -> None:
    """Leave each process its part of every weight; nothing to do for one process. Mutates.

    On CUDA weights are gathered in the precision of the matrix products, and gradients summed in float32.
    """
    if world.mesh is None:
        return
    is_half = precision == "bfloat16" and world.device.type == "cuda"
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16 if is_half else None, reduce_dtype=torch.float32)
    for layer in layers:
        fully_shard(layer, mesh=world.mesh, mp_policy=policy)
    fully_shard(root, mesh=world.mesh, mp_policy=policy)


def reshard(root: Root) -> None:
    """Free the gathered head and embedding after a forward that no backward follows. Mutates."""
    if isinstance(root, FSDPModule):
        root.reshard()


def spread(model: nn.Module, whole: Mapping[str, Tensor] | None, world: World) -> None:
    """Fill a sharded model with the whole weights that rank 0 has (None elsewhere), one at a time. Collective."""
    for name, weight in model.named_parameters():
        assert isinstance(weight, DTensor)
        given = torch.empty(weight.shape, dtype=weight.dtype) if whole is None else whole[name].detach()
        part = distribute_tensor(given.to(world.device), weight.device_mesh, weight.placements)
        with torch.no_grad():
            weight.copy_(part)


def clipped(parameters: Sequence[nn.Parameter], limit: float) -> float:
    """The norm of the whole gradient, which is then scaled to at most `limit`. Collective; mutates the gradients."""
    norm = nn.utils.clip_grad_norm_(parameters, limit)
    return float((norm.full_tensor() if isinstance(norm, DTensor) else norm).item())
