"""What a training run is, as frozen values read from a TOML file. Knows no tensor, no file but the recipe itself.

out = "run"                                # paths are relative to the recipe's folder
[model]                                    # a checkpoint to start from, or a fresh network:
source = "base"                            #   config = "config.json" and tokenizer = "FOLDER"
[data]
train = ["data/*.jsonl"]                   # make:NAME is what a [[data.make]] table describes (made.py)
[defaults]                                 # what every stage has unless it says otherwise
rows = 1024
[[stage]]
name = "joint"
kind = "joint"
steps = 1000
noise = { block_sizes = [16, 32] }
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimode.config import Json
from trimode.errors import InvalidInput
from trimode.models.adapter_config import TARGETS
from trimode.numerics.noise import Noise
from trimode.options import check_options, option
from trimode.training.made import FOLDER, Make, parse_makes, refuse_strangers
from trimode.training.tables import Pattern, build, change, made_tables, merged, refuse_unknown

LARGEST_SEED = 2**62  # what generators take, with room for the stages' own
KINDS = ("ar", "joint", "sft", "lora", "drafter")
TOP = ("out", "seed", "model", "data")  # what `changes` may name beside the fields of stages


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """Weights to start from (a folder or Hub id), or a config.json and a tokenizer's folder for fresh ones."""

    source: str | None = None
    config: Path | None = None
    tokenizer: Path | None = None

    def __post_init__(self) -> None:
        if (self.source is None) == (self.config is None) or (self.config is None) != (self.tokenizer is None):
            raise InvalidInput("[model] wants either source, or both config and tokenizer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Files to learn from and files to measure on, as glob patterns or names of what is made (make:NAME)."""

    train: tuple[Pattern, ...] = ()
    heldout: tuple[Pattern, ...] = ()
    strict: bool = False  # a bad row ends the run instead of being counted
    max_tokens: int | None = option(None, "longest document, as which texts are cut (default: as fits a pack)", low=2)

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The published weights (arXiv 2607.05722, eq. 3)."""

    ar: float = option(1.0, "weight of the autoregressive loss", low=0.0)
    diffusion: float = option(0.3, "weight of the diffusion loss", low=0.0)

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """An adapter's size; `targets` are peft's names."""

    rank: int = option(16, "inner width of the adapter", low=1)
    alpha: float = option(32.0, "its products are scaled by alpha / rank", low=0.0, is_open=True)
    targets: tuple[str, ...] | None = None  # none named: what is usual for the kind of stage

    def __post_init__(self) -> None:
        check_options(self)
        for target in () if self.targets is None else self.targets or ("",):
            if target.rpartition(".")[2] not in TARGETS:
                raise InvalidInput(f"targets is {list(self.targets or ())}, allowed are {', '.join(TARGETS)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage: what is learned, in how many steps of how many rows, how fast, and how it is watched.

    A step reads `streams` packs of `rows` rows over all processes, `micro` of them at a time on each.
    """

    name: str
    kind: str = option("joint", "what is learned", choices=KINDS)
    steps: int = option(1000, "optimiser steps", low=1)
    rows: int = option(1024, "rows of a pack: text and canvases", low=2)
    streams: int = option(8, "packs per step, over all processes", low=1)
    micro: int = option(1, "packs per forward on each process", low=1)
    optimizer: str = option("adamw", "adamw, or muon for a run on one process", choices=("adamw", "muon"))
    learning_rate: float = option(1e-5, "peak rate of AdamW", low=0.0, high=1.0)
    muon_learning_rate: float = option(0.02, "peak rate of Muon", low=0.0, high=1.0)
    final_share: float = option(0.3, "the rate at the end, as a share of the peak", low=0.0, high=1.0)
    schedule: str = option("wsd", "wsd, cosine or constant", choices=("wsd", "cosine", "constant"))
    warmup: int = option(50, "steps of linear warm-up", low=0)
    decay_share: float = option(0.4, "wsd: the share of the steps over which the rate falls", low=0.0, high=1.0)
    weight_decay: float = option(0.1, "of matrices; vectors and embeddings have none", low=0.0)
    clip: float = option(1.0, "largest norm of the gradient", low=0.0, is_open=True)
    spike: float = option(3.0, "stop at a loss above this x the recent median + 1; 0: never", low=0.0)
    precision: str = option("bfloat16", "of matrix products", choices=("bfloat16", "float32"))
    attention: str = option("auto", "how attention is computed", choices=("auto", "split", "dense", "flex"))
    activation_checkpointing: bool = False
    compile: bool = False
    save_every: int = option(500, "steps between checkpoints", low=1)
    keep: int = option(3, "checkpoints kept", low=1)
    log_every: int = option(10, "steps between lines of metrics", low=1)
    evaluate_every: int = option(0, "steps between held-out measurements; 0: never", low=0)
    evaluate_batches: int = option(8, "held-out steps measured each time", low=1)
    tensorboard: bool = True  # where tensorboard is installed
    noise: Noise = field(default_factory=Noise)
    weights: Weights = field(default_factory=Weights)
    lora: Lora = field(default_factory=Lora)
    data: Data = field(default_factory=Data)  # the recipe's own, with what the stage says otherwise

    def __post_init__(self) -> None:
        check_options(self)
        if not self.name or set(self.name) & set("/\\\0") or self.name.startswith("."):
            raise InvalidInput(f"a stage's name is {self.name!r}, allowed is what can name a folder")
        if self.noise.drafts and self.kind != "drafter":
            raise InvalidInput(f"noise.drafts is for kind 'drafter' alone, this is {self.kind!r}")

    @property
    def targets(self) -> tuple[str, ...]:
        """What an adapter changes: the named products, else all seven, or o_proj alone for a drafter, as published."""
        return self.lora.targets or (("o_proj",) if self.kind == "drafter" else TARGETS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A whole run. `text` is the file it was read from, with its changes as comments, kept beside all results.

    `makes` is data to be made before (evaluation/corpora); `origins` says of stages, by name, what that was.
    """

    out: Path
    model: ModelSource
    stages: tuple[Stage, ...]
    seed: int = option(0, "of fresh weights, order and noise", low=0, high=LARGEST_SEED)
    data: Data = field(default_factory=Data)
    makes: tuple[Make, ...] = ()
    origins: Mapping[str, Sequence[Json]] = field(default_factory=dict)
    text: str = ""

    def __post_init__(self) -> None:
        check_options(self)
        for stage in self.stages:
            refuse_strangers((*stage.data.train, *stage.data.heldout), self.makes, f"stage {stage.name!r}")
        names = [stage.name for stage in self.stages]
        if not names:
            raise InvalidInput("the recipe has no [[stage]]")
        if len(set(names)) < len(names):
            raise InvalidInput(f"the stages {', '.join(names)} must have different names")
        if self.makes and FOLDER in names:
            raise InvalidInput(f"a stage's name is {FOLDER!r}, which is the folder of the data that is made")


def read_recipe(path: Path, changes: tuple[str, ...] = ()) -> Recipe:
    """The recipe in a file, with `changes`: seed=1, steps=9 (every stage), stage.joint.steps=9, make.data.rows=9."""
    try:
        text = path.read_text("utf-8")
        table = tomllib.loads(text)
    except FileNotFoundError:
        raise InvalidInput(f"{path}: no such recipe") from None
    except OSError as error:
        raise InvalidInput(f"{path}: this recipe cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: not readable as TOML ({error})") from None
    _check_tables(table)
    for text_of_change in changes:
        change(table, text_of_change, TOP)
    said = "".join(f"# --set {text_of_change!r}\n" for text_of_change in changes)
    return parse(table, path.parent, said + text)


def parse(table: Mapping[str, Any], folder: Path, text: str = "") -> Recipe:
    """A recipe from TOML's tables; paths are relative to `folder`."""
    refuse_unknown(table, (*TOP, "defaults", "stage"), "the recipe")
    _check_tables(table)
    rest = dict(table)
    shared, data = rest.pop("defaults", {}), dict(rest.pop("data", {}))
    makes = parse_makes(made_tables(table), folder)
    data.pop("make", None)
    stages = rest.pop("stage", [])
    if "name" in shared:
        raise InvalidInput("[defaults] cannot name the stages")
    full = [merged(merged({"data": data}, shared), stage) for stage in stages]
    made = tuple(build(Stage, item, f"stage {item.get('name', n + 1)!r}", folder) for n, item in enumerate(full))
    if isinstance(source := rest.get("model", {}).get("source"), str) and (folder / source).exists():
        rest["model"] = rest["model"] | {"source": str(folder / source)}  # anything else is a Hub id
    own = build(Data, data, "the recipe: data", folder)
    return build(Recipe, rest, "the recipe", folder, data=own, stages=made, makes=makes, origins={}, text=text)


def _check_tables(table: Mapping[str, Any]) -> None:
    stages, tables = table.get("stage", []), [table.get(name, {}) for name in ("model", "data", "defaults")]
    if not isinstance(stages, list) or not all(isinstance(item, dict) for item in (*stages, *tables)):
        raise InvalidInput("[model], [data] and [defaults] are tables, and stages are written as [[stage]]")
