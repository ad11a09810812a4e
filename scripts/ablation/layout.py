"""Files of an experiment: words, geometry, data and recipes. Everything is a pure function of the plan.

OUT/plan.json  base/{config.json, tokenizer.json, ...}  data/{tasks,copies}.jsonl
OUT/<setting>-s<seed>/recipe.toml  start/  run/<stage>/final/  results.json
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recipes.tokenizer import train_tokenizer
from recipes.toy_base import rows, write_rows
from scripts.ablation.settings import BASELINE, BLOCK, TASKS, Run, Setting
from trimode.errors import InvalidInput
from trimode.evaluation.corpora.procedural import Copies
from trimode.evaluation.tasks import example
from trimode.models.checkpoint import read_config
from trimode.options import check_options, option
from trimode.tokenizer import Tokenizer
from trimode.training.assembly import feeds
from trimode.training.recipe import read_recipe

GEOMETRY = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "dtype": "float32", "hidden_size": 160,
    "intermediate_size": 448, "num_hidden_layers": 5, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 32, "rms_norm_eps": 1e-6, "hidden_act": "silu", "attention_bias": False,
    "max_position_embeddings": 1024, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "use_sliding_window": False, "tie_word_embeddings": True, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": [2, 5], "mask_token_id": 3, "block_size": BLOCK,
}  # fmt: skip
PER_TASK = 2000  # examples that the words are made from
STAGES = {
    "ar": 'kind = "ar"\nmuon_learning_rate = 0.02\nlearning_rate = 3e-3\n',
    "joint": 'kind = "joint"\nmuon_learning_rate = 0.015\nlearning_rate = 2e-3\n',
    "drafter": 'kind = "drafter"\noptimizer = "adamw"\nlearning_rate = 2e-3\nweight_decay = 0.0\n'
               "lora = { rank = 32, alpha = 128.0 }\n",
}  # fmt: skip
RECIPE = """# {title}. Paths are relative to this file.
out = "run"
seed = {seed}

[model]
{model}

[data]
train = [{files}]

[[stage]]
name = "{stage}"
{kind}steps = {steps}
rows = {rows}
streams = {streams}
micro = {streams}
final_share = 0.0
warmup = {warmup}
precision = "{precision}"
save_every = {save_every}
keep = 1
tensorboard = false
log_every = {log_every}
{noise}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The sizes of an experiment, the same for all its runs. Kept as plan.json."""

    ar_steps: int = option(3000, "steps of the AR stage", low=1)
    joint_steps: int = option(1000, "steps of every joint stage", low=1)
    drafter_steps: int = option(300, "steps of the drafter", low=1)
    rows: int = option(1024, "rows of a pack at the baseline's block size", low=64)
    streams: int = option(2, "packs per step", low=1)
    examples: int = option(60_000, "training examples; a fourth as many random texts to copy stand beside", low=8)
    answers: int = option(1500, "the baseline's own answers, which the drafter learns from", low=1)
    vocabulary: int = option(1024, "tokens, the reserved ones included", low=320, high=2048)
    prompts: int = option(100, "held-out prompts per task", low=1)
    longest: int = option(0, "tokens of an answer; 0: the longest right one and some more", low=0)
    draws: int = option(8, "draws of the NELBO", low=1)
    precision: str = option("float32", "of training's matrix products", choices=("float32", "bfloat16"))

    def __post_init__(self) -> None:
        check_options(self)

    def steps(self, stage: str) -> int:
        return {"ar": self.ar_steps, "joint": self.joint_steps, "drafter": self.drafter_steps}[stage]


def read_plan(out: Path) -> Plan | None:
    """The plan of a folder that was laid out before."""
    path = out / "plan.json"
    return Plan(**json.loads(path.read_text("utf-8"))) if path.exists() else None


def write_plan(out: Path, plan: Plan) -> None:
    """Keep the plan. Raises InvalidInput where the folder has another one: its runs could not be compared."""
    before = read_plan(out)
    if before is not None and before != plan:
        different = [f"{k} {v} (was {asdict(before)[k]})" for k, v in asdict(plan).items() if v != asdict(before)[k]]
        raise InvalidInput(f"{out} was begun with another plan: {', '.join(different)}; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    (out / "plan.json").write_text(json.dumps(asdict(plan), indent=2) + "\n", "utf-8")


def write_base(out: Path, plan: Plan) -> None:
    """Words, geometry and data, once."""
    base, data = out / "base", out / "data"
    if (out / "base" / "config.json").exists():
        return
    base.mkdir(exist_ok=True)
    data.mkdir(exist_ok=True)
    texts = (example(task, "train", 0, i) for task in TASKS for i in range(min(PER_TASK, plan.examples)))
    train_tokenizer(base, [one.prompt + one.answer for one in texts], plan.vocabulary)
    write_rows(data / "tasks.jsonl", rows(TASKS, "train", plan.examples, chat=False))
    write_rows(data / "copies.jsonl", Copies(rows=max(1, plan.examples // 4)).make(Tokenizer.load(base)))
    fields = GEOMETRY | {"vocab_size": plan.vocabulary}
    (base / "config.json").write_text(json.dumps(fields, indent=2) + "\n", "utf-8")  # last: says that all is there


def write_run(out: Path, run: Run, plan: Plan) -> Path:
    """The run's folder with what it starts from and its recipe; gives the recipe's path."""
    folder = out / run.name
    path = folder / "recipe.toml"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    if run.setting is not None and not run.setting.has_drafter:
        write_start(out / f"ar-s{run.seed}" / "run" / "ar" / "final", folder / "start", run.setting)
    text = recipe(run, plan, plan.rows)
    if run.setting is not None and run.setting.block_size != BASELINE.block_size:
        text = recipe(run, plan, equal_rows(folder, run, plan))
    path.write_text(text, "utf-8")
    return path


def write_start(source: Path, start: Path, setting: Setting) -> None:
    """The AR stage's weights, under a configuration that says how this setting's canvases are."""
    shutil.rmtree(start, ignore_errors=True)
    shutil.copytree(source, start)
    fields = json.loads((source / "config.json").read_text("utf-8"))
    fields |= {"block_size": setting.block_size, "canvas_logits": setting.canvas_logits}
    (start / "config.json").write_text(json.dumps(fields, indent=2) + "\n", "utf-8")


def recipe(run: Run, plan: Plan, n_rows: int) -> str:
    """The recipe of a run as TOML."""
    steps = plan.steps(run.stage)
    model = {
        "ar": 'config = "../base/config.json"\ntokenizer = "../base"', "joint": 'source = "start"',
        "drafter": f'source = "../{BASELINE.name}-s{run.seed}/run/joint/final"',
    }[run.stage]  # fmt: skip
    is_drafter = run.stage == "drafter"
    return RECIPE.format(
        title=run.name, seed=run.seed, model=model, stage=run.stage, steps=steps, rows=n_rows,
        files='"answers.jsonl"' if is_drafter else '"../data/tasks.jsonl", "../data/copies.jsonl"',
        kind=STAGES[run.stage] if is_drafter else 'optimizer = "muon"\n' + STAGES[run.stage], streams=plan.streams,
        warmup=min(20, steps // 10), precision=plan.precision, save_every=max(steps // 5, 1),
        log_every=max(steps // 100, 1), noise=noise(run.setting),
    )  # fmt: skip


def noise(setting: Setting | None) -> str:
    """The lines of a recipe that say how canvases are masked and weighed."""
    if setting is None:
        return ""
    if setting.has_drafter:
        return f"noise = {{ block_sizes = [{setting.block_size}] }}\n"
    half_life = "" if setting.half_life is None else f", half_life = {setting.half_life}"
    masks = f"block_sizes = [{setting.block_size}], all_masked_share = {setting.all_masked_share}{half_life}"
    return f"noise = {{ {masks} }}\nweights = {{ ar = 1.0, diffusion = {setting.w_diffusion} }}\n"


def equal_rows(folder: Path, run: Run, plan: Plan) -> int:
    """Rows of a pack with which an epoch has as many packs as the baseline's, so that steps have as many tokens.

    Larger blocks hang over the ends of answers by more masks, for which every document reserves room.
    """
    wanted = n_packs(folder, recipe(Run(setting=BASELINE, seed=run.seed), plan, plan.rows))
    low, high = plan.rows // 2, 2 * plan.rows  # too few; enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if n_packs(folder, recipe(run, plan, middle)) <= wanted else (middle, high)
    return high


def n_packs(folder: Path, text: str) -> int:
    """Packs of the first epoch of a joint recipe's stage."""
    path = folder / "trial.toml"
    path.write_text(text, "utf-8")
    found = read_recipe(path)
    path.unlink()
    config, words = read_config(folder / "start"), Tokenizer.load(folder / "start")
    feed, _ = feeds(found.stages[0], config, words, found.seed, lambda _: None)
    return feed.plan(0).n_packs


def facts(out: Path, run: Run) -> dict[str, Any]:
    """What a finished training says of itself: its last line of metrics."""
    lines = (out / run.name / "run" / run.stage / "metrics.jsonl").read_text("utf-8").splitlines()
    last: dict[str, Any] = json.loads(lines[-1])
    return {name: last[name] for name in ("step", "tokens", "seconds", "loss")}
