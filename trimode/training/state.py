"""What training changes, as named tensors, and these in and out of torch.distributed.checkpoint folders.

Names: `model/<parameter>` for every trained weight, `optim/<moment>/<parameter>` for the optimisers'. A sharded tensor
is written by the processes that hold it and read by those that need it, however many they are; without a process group
the same calls serve one process.
"""

import errno
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future
from torch.optim import Optimizer

from trimode.errors import CheckpointError
from trimode.training.folders import by_first, is_spread

WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.")  # what torch.compile and activation checkpointing add to names
FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
META = ".metadata"
State = dict[str, Tensor]


def named(model: nn.Module) -> dict[str, nn.Parameter]:
    """All weights of a model by the names they have without wrappers; a tied one once."""
    weights = dict(model.named_parameters())
    for wrapper in WRAPPERS:
        weights = {name.replace(wrapper, ""): weight for name, weight in weights.items()}
    return weights


def weights(model: nn.Module) -> State:
    """The trained weights, sharing memory with the model; frozen ones are not among them."""
    return {f"model/{name}": weight.detach() for name, weight in _trained(model).items()}


def moments(model: nn.Module, optims: Sequence[Optimizer]) -> State:
    """What the optimisers remember of each weight, sharing memory with them."""
    names: dict[Tensor, str] = {weight: name for name, weight in _trained(model).items()}
    return {
        f"optim/{key}/{names[weight]}": value
        for optim in optims for weight, kept in optim.state.items() for key, value in kept.items()
    }  # fmt: skip


def write(state: State, folder: Path) -> dict[str, int]:
    """Fill a folder, on disk when this returns; the sizes in bytes of its files. Collective.

    Raises OSError or RuntimeError in every process, whichever process failed.
    """
    with _one_error(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is", UserWarning)  # that there is no group is known
        written = state_dict_saver.save(dict(state), storage_writer=_Writer(folder), no_dist=not is_spread())
    # Asked once: the first process to know goes on, and may rename the folder while another would still look.
    sizes = {META: by_first(lambda: (folder / META).stat().st_size)}
    for info in written.storage_data.values():
        sizes[info.relative_path] = max(sizes.get(info.relative_path, 0), info.offset + info.length)
    return sizes


def read(folder: Path, state: State) -> None:
    """Fill the tensors of `state` in place, all of them. Collective. Raises CheckpointError."""
    try:
        with _one_error(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is", UserWarning)
            state_dict_loader.load(dict(state), storage_reader=FileSystemReader(folder), no_dist=not is_spread())
    except (OSError, RuntimeError, ValueError, KeyError, EOFError) as error:
        raise CheckpointError(f"{folder}: {reason(error)}") from error


def read_one(folder: Path, name: str, shape: torch.Size) -> Tensor:
    """One weight, whole, in float32. For one process. Raises CheckpointError."""
    weight = torch.empty(shape)
    read(folder, {f"model/{name}": weight})
    return weight


def stored(folder: Path) -> dict[str, TensorStorageMetadata]:
    """Names, sizes and types of what a folder holds. Raises CheckpointError."""
    try:
        found = FileSystemReader(folder).read_metadata().state_dict_metadata
    except Exception as error:  # damaged bytes may raise nearly anything while they are unpickled
        raise CheckpointError(f"{folder}: {META} is damaged ({reason(error)})") from error
    return {name: item for name, item in found.items() if isinstance(item, TensorStorageMetadata)}


def restore(folder: Path, model: nn.Module, optims: Sequence[Optimizer]) -> None:
    """Fill the model's trained weights and, where optimisers are given, all moments. Mutates both. Collective.

    The groups of an optimiser (learning rate, decay) stay as they are. Raises CheckpointError.
    """
    found, state = stored(folder), weights(model)
    _check_names({name for name in found if name.startswith("model/")}, set(state), folder)
    kept = _empty_moments(found, _trained(model)) if optims else {}
    flat = {f"optim/{key}/{name}": value for name, of in kept.items() for key, value in of.items()}
    read(folder, state | flat)
    names = {weight: name for name, weight in _trained(model).items()}
    for optim in optims:
        order = [names[weight] for group in optim.param_groups for weight in group["params"]]
        own = {index: kept[name] for index, name in enumerate(order) if name in kept}
        optim.load_state_dict({"state": own, "param_groups": optim.state_dict()["param_groups"]})


def reason(error: BaseException) -> str:
    """Why a file operation failed, in half a sentence."""
    if any(os.strerror(code) in str(error) for code in FULL):  # also where a library gives only the text
        return f"the disk is full ({error})"
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: weight for name, weight in named(model).items() if weight.requires_grad}


def _empty_moments(
    found: Mapping[str, TensorStorageMetadata], trained: Mapping[str, nn.Parameter]
) -> dict[str, dict[str, Tensor]]:
    """Room for every stored moment by weight and key: spread like its weight, or a plain tensor of its own size."""
    out: dict[str, dict[str, Tensor]] = {}
    for full, item in found.items():
        kind, _, rest = full.partition("/")
        if kind == "optim":
            key, _, name = rest.partition("/")
            weight, dtype = trained[name].detach(), item.properties.dtype
            is_alike = item.size == weight.shape and weight.dim() > 0
            room = torch.zeros_like(weight, dtype=dtype) if is_alike else torch.zeros(item.size, dtype=dtype)
            out.setdefault(name, {})[key] = room
    return out


def _check_names(found: set[str], wanted: set[str], folder: Path) -> None:
    if found != wanted:
        odd = sorted(found ^ wanted)
        listed = ", ".join(odd[:3]) + (f" and {len(odd) - 3} more" if len(odd) > 3 else "")
        raise CheckpointError(f"{folder}: the checkpoint and the model trained now differ in their weights: {listed}")


class _Writer(FileSystemWriter):
    """Reports what the disk said, which torch's archive writer hides behind an error of its own."""

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        try:
            done: Future[list[WriteResult]] = super().write_data(plan, planner)
            return done
        except RuntimeError as error:
            raise _root(error) from None


def _root(error: BaseException) -> BaseException:
    """The OSError an error came from, or the error itself."""
    at: BaseException | None = error
    while at is not None and not isinstance(at, OSError):
        at = at.__cause__ or at.__context__
    return at or error


@contextmanager
def _one_error() -> Iterator[None]:
    """Of the failures that every process learns of, the first process's: torch's own report is no Exception."""
    try:
        yield
    except CheckpointException as report:
        error, _ = report.failures[min(report.failures)]
        raise error from None
