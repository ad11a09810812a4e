"""Every mode on the same held-out prompts, interleaved in one process: accuracy, forwards, speed, and equality with ar.

    python scripts/measure_modes.py [--model FOLDER] [--prompts 8] [--repeats 3] [--dtype float32] [--out FILE.md]

Prompts are the held-out split of the procedural tasks (plain form) and continuations of standard-library files that
training never saw. Counts include the prefill. Speeds are medians over the repeats with the lowest and highest.
"""

import argparse
import json
import platform
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from recipes.tokenizer import LISTING, library
from trimode import LLM, load
from trimode.api import Completion
from trimode.evaluation.tasks import TASKS, example
from trimode.training.corpus import read_files

VARIANTS: dict[str, dict[str, Any]] = {
    "ar": {"mode": "ar"},
    "diffusion (fused, 0.9)": {"mode": "diffusion"},
    "diffusion (canvas, 0.9)": {"mode": "diffusion", "anchor": "canvas"},
    "self_speculation": {"mode": "self_speculation"},
}
SEED = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A prompt and, for tasks, what checks its answer."""

    task: str
    prompt: Any
    index: int

    def is_right(self, text: str) -> bool | None:
        if self.task == "code":
            return None
        return bool(TASKS[self.task].check(example(self.task, "heldout", SEED, self.index), text))


def items(llm: LLM, n: int) -> list[Item]:
    """n held-out prompts per task, and n / 2 windows of 200 tokens from unseen source files."""
    found = [
        Item(task=task, prompt=example(task, "heldout", SEED, i).prompt, index=i) for task in TASKS for i in range(n)
    ]
    files = [llm.tokenizer.encode(text) for text in read_files(LISTING, library(), "heldout")]
    long = [tokens for tokens in files if len(tokens) > 700][: (n + 1) // 2]
    return found + [Item(task="code", prompt=tokens[300:500], index=i) for i, tokens in enumerate(long)]


def measure(llm: LLM, work: list[Item], repeats: int, max_tokens: int) -> dict[str, dict[str, list[list[Completion]]]]:
    """results[variant][task] = one list of completions per item (its repeats), variants interleaved per item."""
    results: dict[str, dict[str, list[list[Completion]]]] = {name: defaultdict(list) for name in VARIANTS}
    for variant in VARIANTS.values():
        llm.generate(work[0].prompt, max_tokens=64, **variant)
    for item in work:
        done: dict[str, list[Completion]] = {name: [] for name in VARIANTS}
        for _ in range(repeats):
            for name, variant in VARIANTS.items():
                done[name].append(llm.generate(item.prompt, max_tokens=max_tokens, **variant))
        for name, answers in done.items():
            results[name][item.task].append(answers)
    return results


def rate(answers: list[list[Completion]], repeat: int) -> float:
    return sum(a[repeat].completion_tokens for a in answers) / sum(a[repeat].seconds for a in answers)


def summarise(work: list[Item], results: dict[str, dict[str, list[list[Completion]]]], repeats: int) -> dict[str, Any]:
    """Per variant: by task accuracy and tokens per forward; over all speed, acceptance and equality with ar."""
    out: dict[str, Any] = {}
    for name, by_task in results.items():
        tasks = {}
        for task, answers in by_task.items():
            right = [i.is_right(a[0].text) for i, a in zip([w for w in work if w.task == task], answers, strict=True)]
            same = [a[0].token_ids == r[0].token_ids for a, r in zip(answers, results["ar"][task], strict=True)]
            tasks[task] = {
                "accuracy": None if task == "code" else sum(map(bool, right)) / len(right),
                "tokens_per_forward": per_forward(answers), "same_as_ar": sum(same), "prompts": len(same),
                "tokens_per_second": median(rate(answers, r) for r in range(repeats)),
            }  # fmt: skip
        everything = [a for answers in by_task.values() for a in answers]
        rates = [rate(everything, r) for r in range(repeats)]
        characters = sum(len(a[0].text) for a in everything) / sum(a[0].completion_tokens for a in everything)
        verified = sum(a[0].forwards.get("verify", 0) for a in everything)
        drafted = sum((a[0].acceptance_length or 0) * a[0].forwards.get("verify", 0) for a in everything)
        out[name] = {
            "tasks": tasks, "tokens_per_forward": per_forward(everything), "tokens_per_second": median(rates),
            "range": [min(rates), max(rates)], "characters_per_second": median(rates) * characters,
            "acceptance_length": drafted / verified if verified else None,
            "tokens": sum(a[0].completion_tokens for a in everything),
            "same_as_ar": sum(t["same_as_ar"] for t in tasks.values()), "prompts": len(everything),
        }  # fmt: skip
    return out


def per_forward(answers: list[list[Completion]]) -> float:
    return sum(a[0].completion_tokens for a in answers) / sum(a[0].forwards["total"] for a in answers)


def markdown(summary: dict[str, Any], setting: str) -> str:
    tasks = list(next(iter(summary.values()))["tasks"])
    lines = [setting, "", "Tokens per forward, prefill counted (accuracy in brackets):", ""]
    lines += ["| mode | " + " | ".join(tasks) + " | all |", "|---" * (len(tasks) + 2) + "|"]
    for name, row in summary.items():
        cells = [cell(row["tasks"][task]) for task in tasks]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {row['tokens_per_forward']:.2f} |")
    lines += [
        "",
        "| mode | tokens/s (range) | characters/s | acceptance length | identical to ar |",
        "|---|---|---|---|---|",
    ]
    for name, row in summary.items():
        low, high = row["range"]
        accepted = f"{row['acceptance_length']:.2f}" if row["acceptance_length"] else "-"
        lines.append(
            f"| {name} | {row['tokens_per_second']:.0f} ({low:.0f}-{high:.0f}) | {row['characters_per_second']:.0f} "
            f"| {accepted} | {row['same_as_ar']} of {row['prompts']} |"
        )
    return "\n".join(lines) + "\n"


def cell(task: dict[str, Any]) -> str:
    accuracy = "" if task["accuracy"] is None else f" ({task['accuracy']:.2f})"
    return f"{task['tokens_per_forward']:.2f}{accuracy}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=160)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    llm = load(options.model, dtype=options.dtype)
    work = items(llm, options.prompts)
    start = time.perf_counter()
    summary = summarise(work, measure(llm, work, options.repeats, options.max_tokens), options.repeats)
    setting = (
        f"{len(work)} held-out prompts (seed {SEED}), {options.repeats} interleaved repeats, {options.dtype}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, {platform.machine()}, "
        f"{time.perf_counter() - start:.0f} s."
    )
    print(markdown(summary, setting))
    if options.out:
        options.out.write_text(markdown(summary, setting), "utf-8")
        options.out.with_suffix(".json").write_text(json.dumps(summary, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
