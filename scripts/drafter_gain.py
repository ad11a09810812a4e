"""What a drafter is worth: train one for the bundled model on the model's own answers, count forwards with and without.

    python scripts/drafter_gain.py OUT [--prompts 1500] [--steps 300] [--rank 32] [--items 8] [--seed 0]

Prompts are the training split of the tasks for training, the held-out split for counting; greedy, float32, torch
backend (the native one has no adapters). Counts do not depend on the machine. Every text is compared with `ar`.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from trimode import LLM, load
from trimode.api import BUNDLED
from trimode.evaluation.tasks import TASKS, example
from trimode.numerics.noise import Noise
from trimode.training.parallel import joined
from trimode.training.recipe import Data, Lora, ModelSource, Recipe, Stage
from trimode.training.stages import run

HELDOUT_SEED, BATCH, LONGEST = 7000, 16, 160
SETTINGS: dict[str, dict[str, Any]] = {
    "linear, drafts of 16, all verified, nothing looked up": {
        "placement": "linear", "draft_length": 16, "verify_above": 0.0, "lookup_length": 0, "fallback_below": 0.0,
    },
    "pruned, as by default, nothing looked up": {"lookup_length": 0},
    "default": {},
}  # fmt: skip


def write_answers(path: Path, llm: LLM, count: int, seed: int) -> None:
    """What the model itself answers: the texts its drafts will be judged after."""
    names = sorted(TASKS)
    prompts = [example(names[i % len(names)], "train", seed, i).prompt for i in range(count)]  # type: ignore[arg-type]
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, count, BATCH):
            part = prompts[start : start + BATCH]
            for prompt, answer in zip(part, llm.generate(part, mode="ar", max_tokens=LONGEST), strict=True):
                if answer.text:
                    file.write(json.dumps({"prompt": prompt, "completion": answer.text}) + "\n")


def train(out: Path, steps: int, rank: int, block_size: int, seed: int) -> Path:
    """One stage of kind `drafter`; the folder of the adapter."""
    stage = Stage(
        name="drafter", kind="drafter", steps=steps, rows=1024, streams=4, micro=4, learning_rate=2e-3,
        final_share=0.1, warmup=20, weight_decay=0.0, save_every=steps, tensorboard=False,
        noise=Noise(block_sizes=(block_size,), drafts=True), data=Data(train=(str(out / "answers.jsonl"),)),
        lora=Lora(rank=rank, alpha=4.0 * rank, targets=("o_proj",)),
    )  # fmt: skip
    recipe = Recipe(out=out, model=ModelSource(source=str(BUNDLED)), stages=(stage,), seed=seed)
    with joined("cpu") as world:
        run(recipe, world)
    return out / "drafter" / "final"


def count(llm: LLM, items: int, wanted: dict[str, list[tuple[int, ...]]]) -> dict[str, dict[str, float]]:
    """By setting: tokens per forward, acceptance length, and how many texts are those of `ar`."""
    found: dict[str, dict[str, float]] = {}
    for name, options in SETTINGS.items():
        tokens = forwards = verified = made = same = 0
        for task, texts in wanted.items():
            for i in range(items):
                prompt = example(task, "heldout", HELDOUT_SEED, i).prompt  # type: ignore[arg-type]
                answer = llm.generate(prompt, mode="self_speculation", max_tokens=LONGEST, **options)
                n_verified = answer.forwards.get("verify", 0)
                tokens, forwards = tokens + answer.completion_tokens, forwards + answer.forwards["total"]
                verified, made = verified + n_verified, made + round((answer.acceptance_length or 0) * n_verified)
                same += answer.token_ids == texts[i]
        found[name] = {"per_forward": tokens / forwards, "acceptance": made / max(verified, 1), "same": same}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--prompts", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--items", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.perf_counter()
    options.out.mkdir(parents=True, exist_ok=True)
    fast = load(dtype="float32")
    write_answers(options.out / "answers.jsonl", fast, options.prompts, options.seed)
    wanted = {
        task: [
            fast.generate(example(task, "heldout", HELDOUT_SEED, i).prompt, mode="ar", max_tokens=LONGEST).token_ids
            for i in range(options.items)
        ]
        for task in sorted(TASKS)
    }  # type: ignore[misc]
    adapter = train(options.out, options.steps, options.rank, fast.model.config.block_size or 32, options.seed)
    llm = load(dtype="float32", backend="torch")
    before = count(llm, options.items, wanted)
    llm.load_drafter(adapter)
    after = count(llm, options.items, wanted)
    n = options.items * len(TASKS)
    print("| self_speculation | tokens per forward | with drafter | acceptance length | with drafter | texts of ar |")
    print("|---|---|---|---|---|---|")
    for name in SETTINGS:
        b, a = before[name], after[name]
        print(f"| {name} | {b['per_forward']:.2f} | {a['per_forward']:.2f} | {b['acceptance']:.2f} | "
              f"{a['acceptance']:.2f} | {b['same'] + a['same']:.0f} of {2 * n} |")  # fmt: skip
    print(f"\n{n} prompts, {options.prompts} answers, {options.steps} steps, rank {options.rank}, seed {options.seed}, "
          f"{time.perf_counter() - start:.0f} s.")  # fmt: skip


if __name__ == "__main__":
    main()
