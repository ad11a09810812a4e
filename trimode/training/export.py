"""What training made -> a checkpoint folder as everybody reads it: config.json, safetensors, tokenizer files.

Weights are read one by one, from a model spread over processes or from files, and written shard by shard, so that no
process ever holds them all.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from trimode import __version__
from trimode.config import Json
from trimode.errors import CheckpointError, InvalidInput, StorageError
from trimode.models import weights
from trimode.models.checkpoint import DTYPES, MARK, copy_small_files, empty, read_config, tensors
from trimode.training import checkpoint, state
from trimode.training.folders import by_first, in_step, is_first, led_by_first, partial_name, settle, write_json
from trimode.training.origins import origins


def write_final(model: nn.Module, base: Path, out: Path) -> None:
    """Write a model with the small files of `base`, in the dtype that its config.json names. Collective.

    `out` is complete or absent, and only an earlier export (it has MARK) is replaced. Raises InvalidInput,
    CheckpointError.
    """
    held = state.named(model)

    def read(name: str) -> Tensor:
        weight = held[name].detach()
        return weight.full_tensor() if isinstance(weight, DTensor) else weight

    by_first(lambda: _check_free(out, is_replaceable=True))
    _write(held, base, out, read, {"from": str(base.resolve())})


def export_run(run: Path, out: Path, average: int = 1, step: int | None = None) -> list[Path]:
    """Write the mean, taken in float32, of the last `average` complete checkpoints up to `step`; gives these.

    `run` is the folder of a stage, or of a run: then the stage that saved last is taken. For one process.
    Raises InvalidInput, CheckpointError.
    """
    if average < 1:
        raise InvalidInput(f"average is {average}, allowed is at least 1")
    _check_free(out, is_replaceable=False)
    stage = find_stage(run)
    chosen = choose(stage / "checkpoints", average, step)
    held = state.named(empty(read_config(stage / "base"), torch.float32, torch.device("meta")))
    for path in chosen:
        _check_complete(path, held)

    def read(name: str) -> Tensor:
        total = torch.zeros(held[name].shape)
        for path in chosen:
            total += state.read_one(path, name, total.shape)
        return total / len(chosen)

    origin = {"from": str(stage.resolve()), "steps": [checkpoint.step_of(path) for path in chosen]}
    _write(held, stage / "base", out, read, origin)
    return chosen


def find_stage(run: Path) -> Path:
    """The folder itself where it has checkpoints, else that of its stages whose newest checkpoint is the latest."""
    if (run / "checkpoints").is_dir():
        return run
    saved = {path: path.stat().st_mtime_ns for path in run.glob(f"*/checkpoints/step-*/{checkpoint.FACTS}")}
    if saved:
        return max(saved, key=lambda path: saved[path]).parents[2]
    stages = [path.parent for path in run.glob("*/checkpoints")]
    if len(stages) != 1:
        raise InvalidInput(f"{run} is not a run: neither it nor a folder in it has checkpoints")
    return stages[0]


def choose(folder: Path, n: int, step: int | None) -> list[Path]:
    """The last `n` complete checkpoints, oldest first; the newest is that of `step`, where one is given."""
    good = [path for path in checkpoint.steps(folder) if checkpoint.flaw(path) is None]
    if not good:
        raise InvalidInput(f"{folder} holds no complete checkpoint")
    there = ", ".join(str(checkpoint.step_of(path)) for path in good)
    if step is not None:
        good = [path for path in good if checkpoint.step_of(path) <= step]
        if not good or checkpoint.step_of(good[-1]) != step:
            raise InvalidInput(f"{folder} holds no complete checkpoint of step {step}, there are {there}")
    if len(good) < n:
        upto = "" if step is None else f" up to step {step}"
        raise InvalidInput(f"average is {n}, but {folder} holds {len(good)} complete checkpoints{upto} ({there})")
    return good[-n:]


def _write(held: Mapping[str, Tensor], base: Path, out: Path, read: Callable[[str], Tensor], origin: Json) -> None:
    """All processes read, the first writes: under a temporary name, which is gone if this fails."""
    config, partial = read_config(base), partial_name(out)

    def write() -> None:
        weights.save(partial if is_first() else None, held, tensors(config), DTYPES[config.dtype], read=in_step(read))

    try:
        by_first(lambda: _prepare(partial, base))
        led_by_first(write)
        by_first(lambda: write_json(partial / MARK, {**origin, "trimode": __version__, **origins(base.parent)}))
        by_first(lambda: settle(partial, out))
    except OSError as error:
        raise StorageError(f"{out} could not be written, {state.reason(error)}") from error
    finally:
        if is_first():
            shutil.rmtree(partial, ignore_errors=True)


def _prepare(partial: Path, base: Path) -> None:
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    copy_small_files(base, partial)


def _check_free(out: Path, is_replaceable: bool) -> None:
    is_ours = is_replaceable and (out / MARK).exists()
    if out.exists() and not is_ours:
        raise InvalidInput(f"{out} exists already, choose another folder")


def _check_complete(path: Path, held: Mapping[str, Tensor]) -> None:
    """An adapter's checkpoint, which is without the frozen weights, makes no model."""
    found = {name.removeprefix("model/") for name in state.stored(path) if name.startswith("model/")}
    if found != set(held):
        missing = len(set(held) - found)
        raise CheckpointError(
            f"{path} does not hold the model of its config.json: {missing} of {len(held)} weights are missing, "
            f"{len(found - set(held))} do not belong to it (an adapter is exported by its own stage)"
        )
