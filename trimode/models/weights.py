"""Safetensors in and out: name maps both ways, every missing, extra or misshapen tensor named. Runs no code, no pickle.

Files are memory-mapped and copied tensor by tensor into place, so the peak is about one copy of the weights; they are
written shard by shard.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trimode.errors import CheckpointError, StorageError

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
Tensors = tuple[str, tuple[tuple[str, int], ...]]  # (our parameter, ((their tensor, rows), ...))


def find_files(folder: Path) -> dict[Path, list[str] | None]:
    """The weight files of a folder and the tensors each should hold (None: whatever is in the single file)."""
    index = folder / INDEX
    if not index.exists():
        if not (folder / SINGLE).exists():
            raise CheckpointError(f"{folder}: neither {SINGLE} nor {INDEX} is there")
        return {folder / SINGLE: None}
    try:
        weight_map = json.loads(index.read_text("utf-8"))["weight_map"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{index}: not a readable index of shards ({error})") from error
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"{index}: weight_map is not a JSON object")
    files: dict[Path, list[str] | None] = {}
    for name, file in weight_map.items():
        if not isinstance(file, str) or file in ("", ".", "..") or Path(file).name != file:
            raise CheckpointError(f"{index}: the shard name {file!r} leaves the folder")
        names = files.setdefault(folder / file, [])
        assert names is not None
        names.append(name)
    for path in files:
        if not path.exists():
            raise CheckpointError(f"{path}: this shard is missing, the index names it")
    return files


def load(folder: Path, parameters: Mapping[str, Tensor], wanted: Iterable[Tensors]) -> None:
    """Fill `parameters` from the folder's files, converting to their dtype. Mutates them.

    A tensor whose parameter the model does not have of its own (a stored copy of a tied head) is passed over.
    """
    places: dict[str, Tensor] = {}
    optional: set[str] = set()
    for parameter, pieces in wanted:
        if parameter not in parameters:
            optional.update(name for name, _ in pieces)
            continue
        rows = parameters[parameter].split([n for _, n in pieces])
        places.update((name, row) for (name, _), row in zip(pieces, rows, strict=True))
    fill(folder, find_files(folder), places, optional)


def fill(
    folder: Path, files: Mapping[Path, list[str] | None], places: Mapping[str, Tensor], optional: Iterable[str] = ()
) -> None:
    """Copy every tensor of the files to its place; none may be missing, and none left over but the optional. Mutates
    the places."""
    missing, extra = set(places), set()
    for path, expected in files.items():
        with _open(path) as file:
            names = set(file.keys())
        if expected is not None and set(expected) != names:
            odd = sorted(set(expected) ^ names)
            raise CheckpointError(f"{path}: the index and the file disagree about {_few(odd)}")
        for name in sorted(names & set(places)):
            with _open(path) as file:  # anew for each: pages of the file that were read count as ours until it closes
                _copy(path, name, file.get_tensor(name), places[name])
        extra |= names - set(places) - set(optional)
        missing -= names
    if missing:
        raise CheckpointError(f"{folder}: {len(missing)} tensors are missing: {_few(sorted(missing))}")
    if extra:
        raise CheckpointError(f"{folder}: {len(extra)} tensors do not belong to this model: {_few(sorted(extra))}")


def save(
    folder: Path | None,
    parameters: Mapping[str, Tensor],
    wanted: Iterable[Tensors],
    dtype: torch.dtype,
    max_shard: str = "5GB",
    read: Callable[[str], Tensor] | None = None,
) -> None:
    """Write the checkpoint's own tensor names; shards and index as everybody names them. Holds one shard at a time.

    `read` gives a parameter's values by its name, where `parameters` have none themselves, only shapes (spread over
    processes, or still in files). Without a folder all is read, in the same order, and nothing is written: so every
    process of a group can take part in what one of them writes.
    """
    read = read or parameters.__getitem__
    pieces = {parameter: rows for parameter, rows in wanted if parameter in parameters}
    home = {name: parameter for parameter, rows in pieces.items() for name, _ in rows}
    sizes = {
        name: torch.empty(n, *parameters[parameter].shape[1:], dtype=dtype, device="meta")
        for parameter, rows in pieces.items() for name, n in rows
    }  # fmt: skip
    order = [one for name in sizes for one in _with_bias(name) if one in sizes]
    plan = split_torch_state_dict_into_shards({name: sizes[name] for name in order}, max_shard_size=max_shard)
    for file, names in plan.filename_to_tensors.items():
        state: dict[str, Tensor] = {}
        for parameter in dict.fromkeys(home[name] for name in names):
            rows = read(parameter)
            if folder is not None:
                parts = rows.detach().to("cpu", dtype).split([n for _, n in pieces[parameter]])
                state.update((name, row) for (name, _), row in zip(pieces[parameter], parts, strict=True))
        if folder is not None:
            write(folder / file, {name: state[name] for name in names})
    if plan.is_sharded and folder is not None:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", "utf-8")


def write(path: Path, state: Mapping[str, Tensor], **marks: str) -> None:
    """One file, with texts beside its tensors. Raises StorageError for a full disk, whose error is no OSError here."""
    try:
        save_file({name: row.contiguous() for name, row in state.items()}, path, metadata={"format": "pt"} | marks)
    except SafetensorError as error:
        raise StorageError(f"{path} could not be written ({error})") from error


def _with_bias(name: str) -> tuple[str, ...]:
    """A module's tensors in the order of transformers' state dict: the bias right behind its weight."""
    return () if name.endswith(".bias") else (name, name.removesuffix("weight") + "bias")


def metadata(path: Path) -> dict[str, str]:
    """The texts a file carries beside its tensors."""
    with _open(path) as file:
        return dict(file.metadata() or {})


def _open(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged or truncated ({error})") from error


def _copy(path: Path, name: str, stored: Tensor, place: Tensor) -> None:
    if stored.shape != place.shape:
        raise CheckpointError(
            f"{path}: the tensor {name} has shape {list(stored.shape)}, the config asks for {list(place.shape)}"
        )
    if not stored.is_floating_point():
        raise CheckpointError(f"{path}: the tensor {name} is of type {stored.dtype}, a floating-point type is expected")
    place.copy_(stored)


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
