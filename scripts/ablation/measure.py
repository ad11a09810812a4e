"""One trained run, measured: every mode over the same held-out prompts, and how likely it finds the right answers.

python -m scripts.ablation.measure OUT RUN       # writes OUT/RUN/results.json
python -m scripts.ablation.measure OUT RUN answers   # OUT/RUN/answers.jsonl: what the baseline writes, for a drafter

Greedy, float32, backend torch (the native one drafts with 8-bit weights and has no adapters).
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recipes.toy_base import write_rows
from scripts.ablation.layout import Plan, facts, read_plan
from scripts.ablation.settings import BASELINE, BLOCK, BY_NAME, TASKS, Run, modes
from scripts.bench.machine import words
from trimode import LLM, load
from trimode.cost import FLAT
from trimode.engine.completion import Completion
from trimode.evaluation.likelihood import likelihood
from trimode.evaluation.tasks import TASKS as ALL
from trimode.evaluation.tasks import Example, example

SEED, BATCH, ROOM = 9000, 16, 8  # of the held-out prompts; requests side by side; tokens more than the longest answer


def run_of(name: str) -> Run:
    """The run a folder is named after."""
    setting, _, seed = name.rpartition("-s")
    return Run(setting=None if setting == "ar" else BY_NAME[setting], seed=int(seed))


def model(out: Path, run: Run) -> LLM:
    """The trained weights of a run; a drafter on those of the baseline."""
    if run.stage != "drafter":
        llm = load(out / run.name / "run" / run.stage / "final", dtype="float32", backend="torch")
    else:
        llm = model(out, Run(setting=BASELINE, seed=run.seed))
        llm.load_drafter(out / run.name / "run" / "drafter" / "final")
    llm.cost = FLAT
    return llm


def items(plan: Plan) -> list[Example]:
    """The held-out prompts, the same for all runs."""
    return [example(task, "heldout", SEED, i) for task in TASKS for i in range(plan.prompts)]


def answers(llm: LLM, prompts: Sequence[str], longest: int, options: dict[str, Any]) -> list[Completion]:
    """One per prompt, some at a time."""
    found: list[Completion] = []
    for start in range(0, len(prompts), BATCH):
        found += llm.generate(list(prompts[start : start + BATCH]), max_tokens=longest, **options)
    return found


def counted(item: Example, answer: Completion, plain: Completion) -> dict[str, Any]:
    """What one answer adds to every number; `plain` is that of mode ar."""
    verified = answer.forwards.get("verify", 0)
    return {
        "right": ALL[item.task].check(item, answer.text), "tokens": answer.completion_tokens,
        "forwards": answer.forwards["total"], "verified": verified,
        "gained": round((answer.acceptance_length or 0.0) * verified), "same": answer.token_ids == plain.token_ids,
    }  # fmt: skip


def measured(llm: LLM, run: Run, plan: Plan) -> dict[str, Any]:
    """Per mode a list with an entry per prompt; nats and tokens per prompt for both likelihoods."""
    drawn = items(plan)
    words_of, end = llm.tokenizer, llm.model.config.eos_token_ids[0]
    pairs = [(words_of.encode(one.prompt), (*words_of.encode(one.answer), end)) for one in drawn]
    longest, found = plan.longest or max(len(answer) for _, answer in pairs) + ROOM, {}
    plain: list[Completion] = []
    for name, options in modes(run.setting).items():
        given = answers(llm, [one.prompt for one in drawn], longest, options)
        plain = plain or given
        found[name] = [counted(*each) for each in zip(drawn, given, plain, strict=True)]
    bounds = () if run.setting is None else (BLOCK,)
    likely = likelihood(llm, pairs, bounds, plan.draws, seed=0)
    assert likely.nll is not None
    return {
        "modes": found, "answer_tokens": likely.n_tokens, "nll": likely.nll.nats,
        "nelbo": likely.bounds[0].nats if likely.bounds else None,
    }  # fmt: skip


def write_results(out: Path, run: Run, plan: Plan) -> None:
    """results.json, complete or absent."""
    llm = model(out, run)
    size = sum(weight.numel() for weight in llm.model.parameters())
    result = {
        "run": run.name, "parameters": size, "trained": facts(out, run), "machine": words(),
        **measured(llm, run, plan),
    }  # fmt: skip
    partial = out / run.name / "results.partial"
    partial.write_text(json.dumps(result) + "\n", "utf-8")
    partial.replace(out / run.name / "results.json")


def write_answers(out: Path, run: Run, plan: Plan) -> None:
    """What the baseline answers to training prompts: the texts its drafts will be judged after."""
    llm = model(out, Run(setting=BASELINE, seed=run.seed))
    prompts = [example(TASKS[i % len(TASKS)], "train", 0, i).prompt for i in range(plan.answers)]
    longest = plan.longest or max(len(llm.tokenizer.encode(one.answer)) for one in items(plan)) + ROOM
    given = zip(prompts, answers(llm, prompts, longest, {"mode": "ar"}), strict=True)
    partial = out / run.name / "answers.partial"
    write_rows(partial, ({"prompt": prompt, "completion": one.text} for prompt, one in given if one.text))
    partial.replace(out / run.name / "answers.jsonl")


def main() -> None:
    out, run = Path(sys.argv[1]), run_of(sys.argv[2])
    plan = read_plan(out)
    assert plan is not None, f"{out} holds no plan.json"
    (write_answers if sys.argv[3:] == ["answers"] else write_results)(out, run, plan)


if __name__ == "__main__":
    main()
