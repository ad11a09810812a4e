"""Data that a recipe has made for it: kinds of rows, and the files they become before training starts.

A file is OUT/data/NAME-HASH.jsonl; the hash is of all that decides what is in it, so it is made once, and a change of
the table, of what it reads or of the code that makes it asks for another one.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from glob import escape
from pathlib import Path
from sysconfig import get_paths

from trimode.config import Json
from trimode.errors import InvalidInput
from trimode.evaluation.corpora.base import Kind, Missing, Sources
from trimode.evaluation.corpora.files import Planned, describe, write
from trimode.evaluation.corpora.library import Holes, Library
from trimode.evaluation.corpora.procedural import Copies, Facts, Procedural
from trimode.evaluation.corpora.published import Gsm8k, Mbpp
from trimode.models.checkpoint import resolve
from trimode.tokenizer import Tokenizer
from trimode.training.made import FOLDER, Make, made_names
from trimode.training.recipe import Recipe, Stage
from trimode.training.tables import MADE, Pattern, build

__all__ = ["KINDS", "Planned", "planned", "prepare"]

KINDS: dict[str, type[Kind]] = {
    "procedural": Procedural, "facts": Facts, "copies": Copies, "stdlib": Library, "holes": Holes, "gsm8k": Gsm8k,
    "mbpp": Mbpp,
}  # fmt: skip


def planned(recipe: Recipe, data_dir: Path | None = None, skip_missing: bool = False) -> list[Planned]:
    """What the unfinished stages of a recipe need made, in the order of its tables. Makes nothing."""
    names = {name for stage in _unfinished(recipe) for name in made_names(_patterns(stage))}
    return [_plan(make, recipe, data_dir, skip_missing) for make in recipe.makes if make.name in names]


def prepare(
    recipe: Recipe, data_dir: Path | None = None, skip_missing: bool = False, say: Callable[[str], None] = print
) -> Recipe:
    """Make what is not there yet; gives the recipe with these files in its stages and what they are in `origins`.

    Data of which the source is missing is an error, or with `skip_missing` left out and told. Raises InvalidInput.
    """
    plans = {plan.make.name: plan for plan in planned(recipe, data_dir, skip_missing)}
    facts: dict[str, Json] = {}
    for name, plan in plans.items():
        if plan.flaw is not None and not skip_missing:
            raise InvalidInput(f"make {name!r}: {plan.flaw}; --skip-missing trains without it")
        say(str(plan))
        if plan.flaw is None and not plan.is_there:
            write(plan)
        facts[name] = describe(plan)
    placed = {stage.name: _placed(stage, plans) for stage in _unfinished(recipe)}
    origins = {
        stage.name: [facts[name] for name in dict.fromkeys(made_names(_patterns(stage)))]
        for stage in recipe.stages if stage.name in placed
    }  # fmt: skip
    stages = tuple(placed.get(stage.name, stage) for stage in recipe.stages)
    return replace(recipe, stages=stages, origins=origins)


def _unfinished(recipe: Recipe) -> list[Stage]:
    return [stage for stage in recipe.stages if not (recipe.out / stage.name / "final").is_dir()]


def _patterns(stage: Stage) -> tuple[str, ...]:
    return (*stage.data.train, *stage.data.heldout)


def _plan(make: Make, recipe: Recipe, data_dir: Path | None, skip_missing: bool) -> Planned:
    if make.kind not in KINDS:
        raise InvalidInput(f"make {make.name!r}: kind is {make.kind!r}, allowed are {', '.join(KINDS)}")
    kind = build(KINDS[make.kind], make.fields, f"make {make.name!r}", make.folder)
    for stage in recipe.stages:
        if kind.split != "train" and make.name in made_names(stage.data.train):
            raise InvalidInput(
                f"stage {stage.name!r}: make {make.name!r} is of the {kind.split} split, not to be trained"
            )
    sources = Sources(
        tokenizer=lambda: _tokenizer(recipe), library=Path(get_paths()["stdlib"]), data=data_dir or make.folder,
        skip_missing=skip_missing,
    )  # fmt: skip
    try:
        return Planned(make=make, folder=recipe.out / FOLDER, found=kind.find(sources))
    except Missing as error:
        return Planned(make=make, folder=recipe.out / FOLDER, flaw=str(error))


def _tokenizer(recipe: Recipe) -> Tokenizer:
    model = recipe.model
    return Tokenizer.load(resolve(str(model.source)) if model.tokenizer is None else model.tokenizer)


def _placed(stage: Stage, plans: dict[str, Planned]) -> Stage:
    """The stage with files for names. What is left out may not be all it learns from."""
    train, heldout = (_files(patterns, plans) for patterns in (stage.data.train, stage.data.heldout))
    if stage.data.train and not train:
        raise InvalidInput(f"stage {stage.name!r}: all data that it is to learn from is missing")
    is_measured = heldout or not stage.data.heldout  # a stage that never named any is refused elsewhere
    data = replace(stage.data, train=train, heldout=heldout)
    return replace(stage, data=data, evaluate_every=stage.evaluate_every if is_measured else 0)


def _files(patterns: Sequence[str], plans: dict[str, Planned]) -> tuple[Pattern, ...]:
    files = []
    for pattern in patterns:
        plan = plans.get(pattern.removeprefix(MADE)) if pattern.startswith(MADE) else None
        if plan is None:
            files.append(Pattern(pattern))
        elif plan.found is not None:
            files.append(Pattern(escape(str(plan.path))))
    return tuple(files)
