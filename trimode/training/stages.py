"""The stages of a recipe, one after the other: each from the weights the one before has exported.

    RUN/<stage>/recipe.toml  base/  data.json  metrics.jsonl  tensorboard/  checkpoints/step-00000100/  final/

Stages of an adapter (lora, drafter) leave it in peft's format; the next stage starts from the model beneath.
A finished stage (`final/` is there) is left alone, an unfinished one goes on from its latest complete checkpoint.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from trimode.config import ModelConfig
from trimode.errors import InvalidInput
from trimode.models.adapters import Adapter
from trimode.models.checkpoint import copy_small_files, read_config, read_json, resolve
from trimode.models.convert import is_untrained_conversion, mark_trained
from trimode.tokenizer import Tokenizer
from trimode.training.assembly import ADAPTERS, configuration, feeds, loader, network, refuse, speaker
from trimode.training.checkpoint import Checkpoints, read_facts, refuse_changes
from trimode.training.export import write_final
from trimode.training.feed import Feed
from trimode.training.folders import by_first, partial_name, settle
from trimode.training.interrupts import Interrupts
from trimode.training.metrics import Metrics, Silent
from trimode.training.optim import optimizers
from trimode.training.origins import write_origins
from trimode.training.parallel import World
from trimode.training.recipe import ModelSource, Recipe, Stage
from trimode.training.sources import find_files
from trimode.training.trainer import Parts, Progress, train


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One stage of a run: where it writes, and the folder of the weights it starts from (None: fresh ones)."""

    recipe: Recipe
    stage: Stage
    folder: Path
    source: Path | None
    seed: int

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def final(self) -> Path:
        return self.folder / "final"


def run(recipe: Recipe, world: World, interrupts: Interrupts | None = None, *, force: bool = False) -> bool:
    """Every stage that is not finished; False where a signal came, after a checkpoint. Collective.

    `force` goes on from a checkpoint of other data, another seed or another shape. Raises TrimodeError.
    """
    say, seen = speaker(world), interrupts or Interrupts()
    for stage in recipe.stages:
        refuse(stage, world)
        if not (recipe.out / stage.name / "final").is_dir():
            find_files((*stage.data.train, *stage.data.heldout))  # a misspelled one, before days of other stages
    if recipe.model.source is None and recipe.stages[0].kind in ADAPTERS:
        raise InvalidInput(f"stage {recipe.stages[0].name!r}: an adapter needs a trained model ([model] source)")
    source = by_first(lambda: _found(recipe.model))
    for number, stage in enumerate(recipe.stages):
        task = Task(
            recipe=recipe, stage=stage, folder=recipe.out / stage.name, source=source, seed=recipe.seed + number
        )
        if by_first(task.final.is_dir):
            say(f"{stage.name}: finished before, {task.final} (remove that folder to go on with it)")
        elif _is_asked(seen, world) or not _run_stage(task, world, seen, force, say):
            return False
        if stage.kind not in ADAPTERS:
            source = task.final
    return True


def _is_asked(seen: Interrupts, world: World) -> bool:
    """Whether some process was asked to stop: behind the last step of the stage before nobody has looked."""
    return world.total([float(seen.signal != 0)])[0] > 0


def _run_stage(task: Task, world: World, seen: Interrupts, force: bool, say: Callable[[str], None]) -> bool:
    stage = task.stage
    if stage.kind in ADAPTERS and not force:
        by_first(lambda: _refuse_adapter(task))
    config, tokenizer = _start(task)
    if config.commit_visibility != "causal":
        raise InvalidInput(f"{config.model_type}: committed blocks see both ways, such a model cannot be trained here")
    feed, heldout = feeds(stage, config, tokenizer, task.seed, say)
    checkpoints = Checkpoints(task.folder / "checkpoints", keep=stage.keep)
    facts, saved = _facts(task, config, feed), checkpoints.latest()
    if saved is not None:
        refuse_changes(read_facts(saved), facts, force)
    by_first(lambda: _prepare(task))
    load = loader(config, task.source, task.recipe.seed)
    root, trained = network(stage, config, load, world, task.seed, saved is not None)
    optims = optimizers(dict(trained.named_parameters()), stage)
    state = Progress()
    if saved is not None:
        state = _resumed(checkpoints.load(saved, trained, optims), saved)
        say(f"{stage.name}: goes on after step {state.step}, from {saved}")
    with _metrics(task, state, world) as metrics:
        parts = Parts(
            root=root, trained=trained, optims=optims, feed=feed, heldout=heldout, checkpoints=checkpoints,
            metrics=metrics, world=world, facts=facts, interrupts=seen,
        )  # fmt: skip
        is_done = train(stage, parts, state)
    if is_done:
        _finish(task, trained)
        say(f"{stage.name}: finished, {task.final}")
    return is_done


def _finish(task: Task, trained: nn.Module) -> None:
    """Write what was trained: a whole checkpoint, or an adapter in peft's format. Complete or absent. Collective."""
    if not isinstance(trained, Adapter):
        write_final(trained, task.base, task.final)
        return
    whole, partial = trained.gathered(), partial_name(task.final)

    def save() -> None:
        shutil.rmtree(partial, ignore_errors=True)
        whole.save(partial, str(task.source))
        settle(partial, task.final)

    by_first(save)


def _refuse_adapter(task: Task) -> None:
    """Conversion by adapters alone does not work (arXiv 2512.14067: 30.8 against 38.4), so it is not begun."""
    source = task.source
    if source is not None and is_untrained_conversion(read_json(source / "config.json")):
        raise InvalidInput(
            f"stage {task.stage.name!r}: {source} was converted and never trained jointly, and an adapter alone does "
            f"not convert a model; train a joint or sft stage first, or insist with --force"
        )


def _found(model: ModelSource) -> Path | None:
    return None if model.source is None else resolve(model.source)


def _start(task: Task) -> tuple[ModelConfig, Tokenizer]:
    """The geometry and the words of what the stage starts from. Writes nothing: the run may yet be refused."""
    model = task.recipe.model
    if task.source is not None:
        return read_config(task.source), Tokenizer.load(task.source)
    assert model.config is not None
    assert model.tokenizer is not None
    for path, kind in ((model.config, "file"), (model.tokenizer, "folder")):
        if not (path.is_file() if kind == "file" else path.is_dir()):
            raise InvalidInput(f"[model]: {path} is no {kind}")
    return configuration(model), Tokenizer.load(model.tokenizer)


def _prepare(task: Task) -> None:
    """The small files that say what is trained: the recipe, and the checkpoint's configuration and tokenizer."""
    task.base.mkdir(parents=True, exist_ok=True)
    (task.folder / "recipe.toml").write_text(task.recipe.text, "utf-8")
    write_origins(task.folder, task.stage.name, task.recipe.origins.get(task.stage.name, ()), task.source)
    if task.source is not None:
        copy_small_files(task.source, task.base)
        fields = mark_trained(read_json(task.source / "config.json"), task.stage.kind)
        (task.base / "config.json").write_text(json.dumps(fields, indent=2) + "\n", "utf-8")
        return
    model: ModelSource = task.recipe.model
    assert model.config is not None
    assert model.tokenizer is not None
    copy_small_files(model.tokenizer, task.base)
    (task.base / "generation_config.json").unlink(missing_ok=True)  # of another model
    shutil.copyfile(model.config, task.base / "config.json")


def _facts(task: Task, config: ModelConfig, feed: Feed) -> dict[str, Any]:
    """What a resumed run must share with its past, beside the weights."""
    stage = task.stage
    return {
        "stage": stage.name, "kind": stage.kind, "seed": task.seed, "data": feed.corpus.fingerprint,
        "rows": stage.rows, "streams": stage.streams, "optimizer": stage.optimizer,
        "block_sizes": None if stage.kind == "ar" else list(stage.noise.block_sizes),
        "lora": {**asdict(stage.lora), "targets": list(stage.targets)} if stage.kind in ADAPTERS else None,
        "model": asdict(config),
    }  # fmt: skip


def _resumed(facts: dict[str, Any], saved: Path) -> Progress:
    state = Progress(step=facts["step"], tokens=facts["tokens"], seconds=facts["seconds"], recent=facts["recent"])
    return replace(state, logged=(state.tokens, state.seconds), saved=saved)


def _metrics(task: Task, state: Progress, world: World) -> Silent:
    if world.rank > 0:
        return Silent()
    stage = task.stage
    return Metrics(task.folder, stage.name, stage.steps, state.step, state.seconds, stage.tensorboard)
