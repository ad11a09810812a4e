"""`trimode train recipe.toml`: every stage of a recipe, here or, under torchrun, on all its processes."""

import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimode.cli import flags

if TYPE_CHECKING:
    from trimode.training.plan import Machine
    from trimode.training.recipe import Recipe

File = Annotated[Path, typer.Argument(help="The recipe, a TOML file.", metavar="RECIPE")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="Change the recipe: seed=1, steps=10, stage.joint.steps=10; repeat.")
]
Force = Annotated[bool, typer.Option("--force", help="Go on though data, seed or shapes have changed.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Train nothing; print what every stage would take here.")]
Plan = Annotated[str | None, typer.Option(help="The same for other machines: gpus=256,gpu=h100,mfu=0.4.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first bad row of the data.")]
DataDir = Annotated[
    Path | None, typer.Option(help="Where the public data sets of [[data.make]] lie (default: beside the recipe).")
]
SkipMissing = Annotated[
    bool, typer.Option("--skip-missing", help="Train without data whose source is missing; the checkpoint tells it.")
]


def train(
    file: File, changes: Set = None, force: Force = False, strict: Strict = False, dry_run: DryRun = False,
    plan: Plan = None, data_dir: DataDir = None, skip_missing: SkipMissing = False, device: flags.Device = None,
) -> None:  # fmt: skip
    """Make the recipe's data and train, stage after stage; the same command goes on where it was stopped."""
    from trimode.evaluation.corpora import planned, prepare
    from trimode.training.assembly import speaker
    from trimode.training.folders import by_first
    from trimode.training.interrupts import watched
    from trimode.training.parallel import joined
    from trimode.training.recipe import read_recipe
    from trimode.training.stages import run

    recipe = read_recipe(file, tuple(changes or ()))
    if dry_run or plan is not None:
        for made in planned(recipe, data_dir, skip_missing):
            print(made)
        preview(recipe, plan, device)
        return
    if strict:
        recipe = all_strict(recipe)
    with watched() as interrupts, joined(device) as world:
        ready = by_first(lambda: prepare(recipe, data_dir, skip_missing, speaker(world)))
        is_done = run(ready, world, interrupts, force=force)
    if is_done:
        return
    if world.rank == 0:
        print("trimode: stopped as asked, with a checkpoint; the same command goes on from there", file=sys.stderr)
    raise typer.Exit(128 + (interrupts.signal or signal.SIGTERM))  # not 0: what comes next must not take it for done


def preview(recipe: "Recipe", machines: str | None, device: str | None) -> None:
    """Print what every stage would take on this machine or on named ones, by formulas."""
    from trimode.training.assembly import configuration, n_trained
    from trimode.training.load import stage_load
    from trimode.training.plan import machine, plan, table

    config, on = configuration(recipe.model), this_machine(device) if machines is None else machine(machines)
    loads = [(stage, stage_load(stage, n_trained(stage, config))) for stage in recipe.stages]
    print("\n\n".join(f"{stage.name} ({stage.kind})\n{table(plan(config, load, on))}" for stage, load in loads))


def this_machine(device: str | None) -> "Machine":
    """One process here: the FLOP/s of a large product, measured in a moment, and the memory there is."""
    import os
    import time

    import torch

    from trimode.models.checkpoint import find_device
    from trimode.training.plan import Machine

    place, size, best = find_device(device), 1024, 0.0
    a = torch.randn(size, size, device=place)
    for _ in range(5):
        start = time.perf_counter()
        float((a @ a)[0, 0])  # waits for the product
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if place.type == "cuda":
        memory = torch.cuda.get_device_properties(place).total_memory
    return Machine(gpu="this machine", measured=(best, float(memory)))


def all_strict(recipe: "Recipe") -> "Recipe":
    """The recipe with data in which a bad row is an error, in every stage."""
    stages = tuple(replace(stage, data=replace(stage.data, strict=True)) for stage in recipe.stages)
    return replace(recipe, stages=stages)
