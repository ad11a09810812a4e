"""The state of a run on disk, as torch.distributed.checkpoint folders. Knows no schedule, no data and no clock.

    RUN/<stage>/checkpoints/step-00000100/   .metadata  __0_0.distcp  __1_0.distcp  ...  facts.json

All processes need to see the folder, and their number may change between save and load. Stored are the weights that are
trained and the optimisers' moments; learning rates and the like are the recipe's, and whatever is random is a function
of facts (seed and step), so there is nothing else to keep.
"""

import json
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer

from trimode import __version__
from trimode.config import Json
from trimode.errors import CheckpointError, InvalidInput, StorageError
from trimode.options import check_options, option
from trimode.training import state
from trimode.training.folders import by_first, clear, is_spread, partial_name, remove, settle, write_json

FORMAT = 1  # of the folder; a reader refuses what is newer than itself
FACTS = "facts.json"
FIXED = (
    "kind",
    "seed",
    "data",
    "rows",
    "streams",
    "block_sizes",
    "optimizer",
    "lora",
    "model",
)  # facts a resumed run shares


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The checkpoints of one stage: the last `keep`, and for ever those whose step is a multiple of `every`."""

    folder: Path
    keep: int = option(3, "checkpoints to keep", low=1)
    every: int | None = option(None, "checkpoints at multiples of this step stay for ever", low=1)

    def __post_init__(self) -> None:
        check_options(self)

    def save(self, step: int, model: nn.Module, optims: Sequence[Optimizer], facts: Json) -> Path:
        """Write what is needed to go on after `step` steps; older folders go only when it is complete. Collective.

        A full disk, or any other failure of the file system, is a StorageError in every process, and leaves the
        checkpoints there were.
        """
        final = self.folder / f"step-{step:08d}"
        partial = partial_name(final)
        facts = {**facts, "format": FORMAT, "step": step, "world": dist.get_world_size() if is_spread() else 1,
                 "versions": {"trimode": __version__, "torch": torch.__version__}}  # fmt: skip
        try:
            by_first(self._prepare)
            sizes = state.write(state.weights(model) | state.moments(model, optims), partial)
            by_first(lambda: _complete(partial, final, {**facts, "files": sizes}))
        except (OSError, RuntimeError) as error:
            by_first(lambda: shutil.rmtree(partial, ignore_errors=True))
            raise self._failure(step, error) from error
        by_first(lambda: self._prune(step))
        return final

    def latest(self) -> Path | None:
        """The newest complete checkpoint; a damaged newer one is passed over with a warning. Collective."""
        return by_first(lambda: newest(self.folder))

    def load(self, path: Path, model: nn.Module, optims: Sequence[Optimizer] = ()) -> dict[str, Any]:
        """Fill the model's trained weights, and the moments of `optims`; gives the facts. Mutates both. Collective."""
        damage = by_first(lambda: flaw(path))
        if damage is not None:
            raise CheckpointError(f"{path}: {damage}")
        state.restore(path, model, optims)
        return read_facts(path)

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        clear(self.folder, "step-*")

    def _prune(self, step: int) -> None:
        """Damaged folders go, and complete ones before the last `keep` up to this step."""
        found = steps(self.folder)
        good = [path for path in found if flaw(path) is None]
        old = [path for path in good if step_of(path) <= step][: -self.keep]
        for path in found:
            is_milestone = self.every is not None and step_of(path) % self.every == 0
            if path not in good or (path in old and not is_milestone):
                remove(path)

    def _failure(self, step: int, error: BaseException) -> StorageError:
        good = [path.name for path in steps(self.folder) if flaw(path) is None]
        survives = f"the last complete checkpoint there is {good[-1]}" if good else "no checkpoint there is complete"
        return StorageError(f"{self.folder}: step {step} could not be saved, {state.reason(error)}; {survives}")


def steps(folder: Path) -> list[Path]:
    """All folders that bear a checkpoint's name, oldest first."""
    return sorted((path for path in folder.glob("step-*") if path.name[5:].isdigit()), key=step_of)


def step_of(path: Path) -> int:
    """The step that a checkpoint's folder is named after."""
    return int(path.name[5:])


def newest(folder: Path) -> Path | None:
    """The newest complete checkpoint of a folder, with a warning for each damaged one that is newer. One process."""
    for path in reversed(steps(folder)):
        damage = flaw(path)
        if damage is None:
            return path
        warnings.warn(f"{path} is passed over: {damage}", stacklevel=2)
    return None


def flaw(path: Path) -> str | None:
    """What is wrong with a checkpoint's files, or None. A newer format raises CheckpointError."""
    try:
        files = read_facts(path)["files"]
        for name, size in files.items():
            if not (path / name).is_file():
                return f"the file {name} is missing"
            if (path / name).stat().st_size != size:
                return f"the file {name} has {(path / name).stat().st_size} bytes, {size} were written"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, CheckpointError):
            raise
        return f"{FACTS} is missing or damaged ({error})"
    return None


def read_facts(path: Path) -> dict[str, Any]:
    """facts.json. Raises CheckpointError for a format newer than this reader, OSError or ValueError for damage."""
    facts = json.loads((path / FACTS).read_text("utf-8"))
    if facts["format"] > FORMAT:
        raise CheckpointError(
            f"{path}: the checkpoint has format {facts['format']}, this version of trimode reads up to {FORMAT}"
        )
    return cast(dict[str, Any], facts)


def refuse_changes(saved: Json, now: Json, force: bool) -> None:
    """Refuse to go on with what a resumed run must share with its past (FIXED), unless forced. InvalidInput names all.

    `model` is a mapping; its fields are compared one by one. What neither states is not compared.
    """
    then, here = _stated(saved), _stated(now)
    changed = [name for name in dict.fromkeys([*then, *here]) if then.get(name) != here.get(name)]
    if changed and not force:
        listed = ", ".join(f"{name} was {then.get(name)!r} and is now {here.get(name)!r}" for name in changed)
        raise InvalidInput(f"the run cannot go on as it was: {listed} (--force goes on all the same)")


def _stated(facts: Json) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(
        json.dumps({name: facts[name] for name in FIXED if name in facts})
    )  # tuples become lists
    model = plain.pop("model", {})
    return plain | {f"model.{name}": value for name, value in model.items()}


def _complete(partial: Path, final: Path, facts: Json) -> None:
    write_json(partial / FACTS, facts)
    settle(partial, final)
