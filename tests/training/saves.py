"""A training loop of a few lines for tests of checkpoints: one process or two, the same global batches."""

import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Muon, Optimizer

from tests.fakes import byte_tokenizer, tiny_config
from tests.models.checkpoints import FIELDS, write_config
from trimode.errors import TrimodeError
from trimode.models.checkpoint import empty
from trimode.models.transformer import Transformer, initialise
from trimode.numerics.packed import packed
from trimode.spans import Span
from trimode.training.checkpoint import Checkpoints, newest
from trimode.training.export import write_final

ROWS, STREAMS = 12, 4
FACTS = {"seed": 0, "data": "d1", "block_sizes": (8,), "rows": ROWS, "streams": STREAMS}
GEOMETRY = dict(num_hidden_layers=2, rope_parameters={"rope_type": "default", "rope_theta": 1e4}, dtype="float32")


def make_base(folder: Path, **changes: object) -> Path:
    """What a stage keeps of its base: the config.json of `new`'s models, and a tokenizer."""
    write_config(folder, FIELDS | GEOMETRY | changes)
    byte_tokenizer().backend.save(str(folder / "tokenizer.json"))
    return folder


def new(optimizer: str = "adamw", seed: int = 0, **changes: object) -> tuple[Transformer, list[Optimizer]]:
    """A tiny model and its optimisers, sharded where there is a process group."""
    model = empty(tiny_config(**changes), torch.float32, torch.device("cpu"))
    initialise(model, seed)
    if dist.is_initialized():
        for layer in model.layers:
            fully_shard(layer)
        fully_shard(model)
    if optimizer == "adamw":
        return model, [AdamW(model.parameters(), lr=3e-3)]
    matrices = [p for name, p in model.named_parameters() if name.endswith((".out", ".gate_up", ".down"))]
    rest = [p for p in model.parameters() if all(p is not matrix for matrix in matrices)]
    return model, [Muon(matrices, lr=3e-3), AdamW(rest, lr=3e-3, fused=True)]


def run(model: Transformer, optims: Sequence[Optimizer], first: int, last: int) -> list[float]:
    """Steps [first, last) of next-token prediction on tokens that are a function of the step; the losses."""
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    losses = []
    for step in range(first, last):
        tokens = torch.randint(0, 61, (STREAMS, ROWS), generator=torch.Generator().manual_seed(step))
        own = tokens[rank::world]
        spans = [[Span(commit=tuple(row.tolist()), kind="prefill")] for row in own]
        positions = torch.arange(ROWS).repeat(len(own))
        hidden = model(own.flatten(), positions, packed(spans, ROWS)).unflatten(0, own.shape)
        total = F.cross_entropy(model.logits(hidden[:, :-1].flatten(0, 1)), own[:, 1:].flatten(), reduction="sum")
        (total / (STREAMS * ROWS) * world).backward()  # sharded gradients are means over processes
        for optim in optims:
            optim.step()
            optim.zero_grad()
        loss = total.detach()
        if world > 1:
            dist.all_reduce(loss)
        losses.append(loss.item())
    return losses


def whole(model: Transformer) -> dict[str, torch.Tensor]:
    """Every weight, gathered and copied."""
    return {
        name: (weight.full_tensor() if isinstance(weight, DTensor) else weight).detach().clone()
        for name, weight in model.named_parameters()
    }


def fills(path: Path, model: Transformer, optims: Sequence[Optimizer]) -> bool:
    """Whether a checkpoint holds exactly these weights."""
    again, more = new(seed=1)
    Checkpoints(path.parent).load(path, again, more)
    return all(torch.equal(weight, whole(again)[name]) for name, weight in whole(model).items())


@contextmanager
def small_disk(n_bytes: int) -> Iterator[None]:
    """No file may grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def resume_both_ways(folder: Path) -> None:
    """Ten steps of two processes with a save after five, five after that save, five after one process's save."""
    model, optims = new()
    saved = Checkpoints(folder / "two")
    run(model, optims, 0, 5)
    saved.save(5, model, optims, FACTS)
    run(model, optims, 5, 10)
    out = {"straight": whole(model)}
    for name, checkpoints in (("two to two", saved), ("one to two", Checkpoints(folder / "one"))):
        model, optims = new(seed=1)
        path = checkpoints.latest()
        assert path is not None
        checkpoints.load(path, model, optims)
        run(model, optims, 5, 10)
        out[name] = whole(model)
    if dist.get_rank() == 0:
        torch.save(out, folder / "out.pt")


def fill_the_disk_of_one(folder: Path) -> None:
    """The second process cannot write: both write down what they are told, and the next save works again."""
    model, optims = new()
    run(model, optims, 0, 1)
    checkpoints = Checkpoints(folder / "full")
    checkpoints.save(1, model, optims, FACTS)
    with small_disk(1000) if dist.get_rank() == 1 else nullcontext():
        try:
            checkpoints.save(2, model, optims, FACTS)
        except TrimodeError as error:
            sentence = str(error)
    (folder / f"sentence {dist.get_rank()}").write_text(sentence)
    if dist.get_rank() == 0:
        (folder / "left").write_text(json.dumps(sorted(os.listdir(folder / "full"))))
    dist.barrier()
    checkpoints.save(3, model, optims, FACTS)


def write_finals(folder: Path) -> None:
    """Write a sharded model; then again, to a disk that is full for the process that writes."""
    model, _ = new()
    write_final(model, folder / "base", folder / "final")
    weights = whole(model)
    if dist.get_rank() == 0:
        torch.save(weights, folder / "final.pt")
    with small_disk(10_000) if dist.get_rank() == 0 else nullcontext():
        try:
            write_final(model, folder / "base", folder / "never")
        except TrimodeError as error:
            sentence = str(error)
    (folder / f"export {dist.get_rank()}").write_text(sentence)


def two(folder: Path, rank: int) -> None:
    """One of two processes that meet at a file."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    resume_both_ways(folder)
    fill_the_disk_of_one(folder)
    write_finals(folder)
    dist.barrier()  # none leaves while another still talks to it
    dist.destroy_process_group()


def kill(folder: Path) -> None:
    """Save once; then again and again in a child that is killed at its first, second, ... file operation.

    Prints a JSON list: of every killed child, the step that is newest after it, and whether it is whole.
    """
    torch.set_num_threads(1)
    model, optims = new()
    run(model, optims, 0, 1)
    Checkpoints(folder / "first").save(1, model, optims, FACTS)
    outcomes, survived = [], False
    while not survived:
        again = folder / f"{len(outcomes)}"
        shutil.copytree(folder / "first", again)
        child = os.fork()
        if child == 0:
            die_at(len(outcomes) + 1, again)
            Checkpoints(again, keep=1).save(2, model, optims, FACTS)
            os._exit(0)
        survived = os.waitpid(child, 0)[1] == 0
        path = newest(again)
        outcomes.append((path and path.name, path is not None and fills(path, model, optims)))
        Checkpoints(again, keep=1).save(3, model, optims, FACTS)
        assert os.listdir(again) == ["step-00000003"]
    print(json.dumps(outcomes))


def die_at(n: int, folder: Path) -> None:
    """kill -9 this process before its n-th operation on a file of the folder."""
    left = [n]

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        path = str(arguments[0]) if arguments else ""
        if event.startswith(("open", "os.", "shutil.")) and path.startswith(str(folder)):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


if __name__ == "__main__":
    if sys.argv[1] == "kill":
        kill(Path(sys.argv[2]))
    else:
        two(Path(sys.argv[2]), int(sys.argv[1]))
