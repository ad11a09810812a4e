"""What is compared: one baseline, settings that differ from it in one thing, and the modes all are measured in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trimode.errors import InvalidInput

SEEDS = (0, 1)  # of the headline pairs; everything else has the first
TASKS = ("class", "csv", "email", "json", "text")
BLOCK = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A joint stage by what of it varies. `group` is the question it belongs to."""

    name: str
    group: str
    value: str  # in words, for tables
    w_diffusion: float = 0.3
    all_masked_share: float = 0.25
    half_life: float | None = None
    block_size: int = BLOCK
    canvas_logits: str = "own"
    is_headline: bool = False
    has_drafter: bool = False  # the baseline's weights, with an adapter for its drafts

    @property
    def seeds(self) -> tuple[int, ...]:
        return SEEDS if self.is_headline else SEEDS[:1]


BASELINE = Setting(
    name="baseline", group="baseline",
    value="w_diffusion 0.3, all-masked 25 %, half-life off, block 16, no shift", is_headline=True,
)  # fmt: skip
SETTINGS = (
    BASELINE,
    Setting(name="w-0", group="w_diffusion", value="w_diffusion 0", w_diffusion=0.0, is_headline=True),
    Setting(name="w-0.1", group="w_diffusion", value="w_diffusion 0.1", w_diffusion=0.1),
    Setting(name="w-1", group="w_diffusion", value="w_diffusion 1", w_diffusion=1.0),
    Setting(name="masked-0", group="all-masked share", value="all-masked 0 %", all_masked_share=0.0, is_headline=True),
    Setting(name="masked-100", group="all-masked share", value="all-masked 100 %", all_masked_share=1.0),
    Setting(name="half-life", group="half-life", value="half-life 0.1", half_life=0.1),
    Setting(name="block-8", group="block", value="block 8", block_size=8),
    Setting(name="block-32", group="block", value="block 32", block_size=32),
    Setting(name="shifted", group="shift", value="shifted", canvas_logits="shifted", is_headline=True),
    Setting(name="drafter", group="drafter", value="baseline with a drafter", has_drafter=True),
)
BY_NAME = {setting.name: setting for setting in SETTINGS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A folder of the experiment: the AR stage of a seed (no setting), or a setting of a seed."""

    setting: Setting | None
    seed: int

    @property
    def name(self) -> str:
        return f"{'ar' if self.setting is None else self.setting.name}-s{self.seed}"

    @property
    def stage(self) -> str:
        if self.setting is None:
            return "ar"
        return "drafter" if self.setting.has_drafter else "joint"


RUNS = tuple(Run(setting=setting, seed=seed) for setting in SETTINGS for seed in setting.seeds)


def phases(only: Sequence[str] = ()) -> tuple[list[Run], list[Run], list[Run]]:
    """AR stages, joint stages (headline pairs first), drafters: the members of a list need nothing of one another.

    `only`: names of settings or of runs, to which what they start from is added. Raises InvalidInput for another name.
    """
    known = {run.name for run in RUNS} | set(BY_NAME)
    if unknown := [name for name in only if name not in known]:
        raise InvalidInput(f"{', '.join(unknown)}: no such run, known are {', '.join(sorted(known))}")
    chosen = [run for run in RUNS if not only or run.name in only or _name(run) in only]
    drafters = [run for run in chosen if run.stage == "drafter"]
    needed = {run.name for run in chosen} | {f"{BASELINE.name}-s{run.seed}" for run in drafters}
    joint = [run for run in RUNS if run.stage == "joint" and run.name in needed]
    seeds = sorted({run.seed for run in joint})
    first = sorted(joint, key=lambda run: not BY_NAME[_name(run)].is_headline)
    return [Run(setting=None, seed=seed) for seed in seeds], first, drafters


def _name(run: Run) -> str:
    return run.name.rpartition("-s")[0]


def modes(setting: Setting | None) -> dict[str, dict[str, Any]]:
    """By name, the options of `LLM.generate`. Drafts are of fixed length and nothing is looked up in the text, so that
    what is accepted is the canvases' doing alone; `pruned` chooses its lengths by FLAT costs, the same on all machines.
    """
    plain = {"mode": "self_speculation", "lookup_length": 0}
    fixed = plain | {"verify_above": 0.0, "fallback_below": 0.0}
    if setting is None:
        return {"ar": {"mode": "ar"}}
    return {
        "ar": {"mode": "ar"},
        "diffusion": {"mode": "diffusion", "confidence_threshold": 0.9},
        "linear": fixed | {"placement": "linear", "draft_length": setting.block_size},
        "pruned": plain | {"placement": "pruned"},
        "quadratic": fixed | {"placement": "quadratic", "draft_length": 8},
    }
