"""What the toy has learned: right answers and tokens per forward, by checkpoint, task set and mode.

python -m recipes.toy_report OUT [--items 10]

Held-out prompts, greedy, at most 160 tokens, float32; plain prompts for `joint`, chat turns behind `sft`.
"""

import argparse
from pathlib import Path
from typing import Any

from recipes.toy_base import DOMAIN, TASKS
from trimode import LLM, load
from trimode.evaluation.tasks import TASKS as ALL
from trimode.evaluation.tasks import example

SEED, LONGEST, BATCH = 9000, 160, 10


def measure(llm: LLM, tasks: tuple[str, ...], items: int, chat: bool, **options: Any) -> tuple[int, float]:
    """Right answers, and tokens per forward over all of them."""
    right = tokens = forwards = 0
    drawn = [example(task, "heldout", SEED, i) for task in tasks for i in range(items)]  # type: ignore[arg-type]
    for start in range(0, len(drawn), BATCH):
        part = drawn[start : start + BATCH]
        prompts = [llm.chat_prompt(d.prompt) if chat else llm.tokenizer.encode(d.prompt) for d in part]
        for item, answer in zip(part, llm.generate(prompts, max_tokens=LONGEST, **options), strict=True):
            right += ALL[item.task].check(item, answer.text)
            tokens, forwards = tokens + answer.completion_tokens, forwards + answer.forwards["total"]
    return right, tokens / forwards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--items", type=int, default=10, help="prompts per task")
    options = parser.parse_args()
    runs = options.out / "runs"
    print("| model | tasks | ar right | diffusion right | tokens per forward: diffusion | self_speculation |")
    print("|---|---|---|---|---|---|")

    def row(name: str, llm: LLM, tasks: tuple[str, ...], chat: bool, **more: Any) -> None:
        found = {mode: measure(llm, tasks, options.items, chat, mode=mode, **more)
                 for mode in ("ar", "diffusion", "self_speculation")}  # fmt: skip
        n = len(tasks) * options.items
        print(f"| {name} | {', '.join(tasks)} | {found['ar'][0]} of {n} | {found['diffusion'][0]} of {n} | "
              f"{found['diffusion'][1]:.2f} | {found['self_speculation'][1]:.2f} |", flush=True)  # fmt: skip

    row("converted", load(options.out / "converted", backend="torch"), TASKS, False)
    row("joint", load(runs / "joint" / "final", backend="torch"), TASKS, False)
    tuned = load(runs / "sft" / "final", backend="torch")
    row("sft", tuned, TASKS, True)
    row("sft", tuned, DOMAIN, False)
    tuned.load_adapter(runs / "lora" / "final", "domain")
    row("sft with the adapter", tuned, DOMAIN, False, adapter="domain")
    tuned.load_drafter(runs / "drafter" / "final")
    row("sft with the drafter", tuned, TASKS, True)


if __name__ == "__main__":
    main()
