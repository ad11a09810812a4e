"""What training made -> a checkpoint folder as everybody reads it: config.json, safetensors, tokenizer files.

Weights are read parameter by parameter, from a model spread over processes or from files, and written shard by shard,
so no process ever holds them all.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from trimode.config import Json
from trimode.errors import CheckpointError, InvalidInput
from trimode.models import weights
from trimode.models.checkpoint import DTYPES, copy_small_files, empty, read_config, tensors
from trimode.training import checkpoint, state
from trimode.training.folders import by_first, is_first, partial_name, settle, write_json

MARK = "trimode_export.json"  # where the weights come from; a folder that has it may be replaced by a newer export


def write_final(model: nn.Module, base: Path, out: Path) -> None:
    """Write a trained model with the small files of `base`, in the dtype that its config.json names. Collective.

    `out` is complete or absent; only an earlier export is replaced. Raises InvalidInput, CheckpointError.
    """
    trained = state.named(model)

    def read(name: str) -> Tensor:
        weight = trained[name].detach()
        return weight.full_tensor() if isinstance(weight, DTensor) else weight

    by_first(lambda: _check_free(out, is_replaceable=True))
    _write(trained, base, out, read, {"from": "the model at the end of its training"})


def export_run(run: Path, out: Path, average: int = 1, step: int | None = None) -> list[Path]:
    """Write the mean (in fp32) of the last `average` complete checkpoints of a run, up to `step`; gives these.

    `run` is a stage's folder, or a run's: then its last stage is taken. In one process, without a group.
    Raises InvalidInput, CheckpointError.
    """
    if average < 1:
        raise InvalidInput(f"average is {average}, allowed is at least 1")
    _check_free(out, is_replaceable=False)
    stage = find_stage(run)
    chosen = _choose(stage / "checkpoints", average, step)
    base = stage / "base"
    model = empty(read_config(base), torch.float32, torch.device("meta"))
    holds = [state.stored(path) for path in chosen]
    for path, found in zip(chosen, holds, strict=True):
        _check_holds(path, {f"model/{name}": weight for name, weight in model.named_parameters()}, found)

    def read(name: str) -> Tensor:
        total = torch.zeros(dict(model.named_parameters())[name].shape)
        for path in chosen:
            total += state.read_one(path, f"model/{name}", total.shape)
        return total / len(chosen)

    origin = {"from": str(stage.resolve()), "steps": [checkpoint.read_facts(path)["step"] for path in chosen]}
    _write(dict(model.named_parameters()), base, out, read, origin)
    return chosen
