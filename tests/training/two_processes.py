"""What a process of two does in test_parallel.py, and the same alone: every case as plain numbers."""

import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import multiprocessing
from torch.distributed.tensor import DTensor

from tests.training.stand_ins import NOISE, STAGE, Feed, Lines, parts
from trimode.errors import InvalidInput
from trimode.training.assembly import recompute
from trimode.training.optim import optimizers
from trimode.training.parallel import World, joined
from trimode.training.trainer import Parts, Progress, evaluate, gradients, train

CASES: dict[str, dict[str, Any]] = {
    "tied": {"tied": True},
    "untied": {"tied": False, "silent": (0,)},  # rank 0 has nothing to score: its part of the head learns all the same
    "accumulated and recomputed": {"tied": True, "streams": 4, "is_recomputed": True},
}


def case(name: str, world: World) -> dict[str, Any]:
    """Losses, norms and held-out losses of five steps, and the whole gradient of the first."""
    options = dict(CASES[name])
    streams, is_recomputed = options.pop("streams", 2), options.pop("is_recomputed", False)
    feed = Feed(noise=NOISE, streams=streams, silent=options.pop("silent", ()))
    stage = replace(STAGE, streams=streams)
    made = replace(parts(stage, feed, world, **options), heldout=feed)
    if is_recomputed:
        recompute(made.root.model.layers)  # type: ignore[arg-type]
    gradients(stage, made, 0)
    gradient = whole_gradient(made)
    made.root.zero_grad()
    train(stage, made, Progress())
    assert isinstance(made.metrics, Lines)
    lines = made.metrics
    return {"loss": lines.of("loss"), "norm": lines.of("norm"), "tokens": lines.of("tokens"),
            "heldout": evaluate(stage, made), "gradient": gradient}  # fmt: skip


def whole_gradient(made: Parts) -> dict[str, torch.Tensor]:
    found = {}
    for name, weight in made.trained.named_parameters():
        gradient = weight.grad
        assert gradient is not None, name
        found[name] = gradient.full_tensor() if isinstance(gradient, DTensor) else gradient.clone()
    return found


def work(rank: int, port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": str(port)}  # fmt: skip
    with joined("cpu") as world:
        found = {name: case(name, world) for name in CASES}
        found["muon"] = refusal(world)
        if rank == 0:
            torch.save(found, folder / "found.pt")


def refusal(world: World) -> str:
    """What Muon says to sharded weights."""
    model = parts(world=world).trained
    try:
        optimizers(dict(model.named_parameters()), replace(STAGE, optimizer="muon"))
    except InvalidInput as error:
        return str(error)
    return ""


def run_two(folder: Path) -> dict[str, Any]:
    """All cases in two processes over gloo."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(work, (port, folder), nprocs=2)  # type: ignore[no-untyped-call]
    return dict(torch.load(folder / "found.pt", weights_only=True))
