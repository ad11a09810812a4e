"""The last step of an evaluation: the report put together, with the likelihood of the references, and its files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trimode.api import LLM
from trimode.evaluation.asking import Asked
from trimode.evaluation.likelihood import likelihood
from trimode.evaluation.plan import ModeSpec, Plan
from trimode.evaluation.records import Name, Record, write
from trimode.evaluation.report import Evaluation, areas, rows
from trimode.evaluation.tables import markdown

REPORT, TABLE, PLOTS = "report.json", "report.md", "plots"


def put_together(
    llm: LLM, plan: Plan, modes: Sequence[ModeSpec], everything: Sequence[Asked], there: Mapping[Name, Record],
    about: dict[str, Any],
) -> Evaluation:  # fmt: skip
    """The report of all records, which must be there."""
    keys: dict[str, list[str]] = {}
    for one in everything:
        keys.setdefault(one.item.task, []).append(one.item.key)
    lines = rows(modes, llm.model.config, keys, there)
    return Evaluation(
        checkpoint=about["checkpoint"], about=about, rows=lines,
        likelihood=references(llm, plan, everything) if plan.likelihood else [], aup=areas(lines),
    )  # fmt: skip


def references(llm: LLM, plan: Plan, everything: Sequence[Asked]) -> list[dict[str, Any]]:
    """By task, how likely the model finds the right answers; those the context does not hold are left out."""
    pairs: dict[str, list[tuple[Sequence[int], Sequence[int]]]] = {}
    for one in everything:
        answer = llm.tokenizer.encode(one.item.reference) if one.item.reference else []
        if answer and len(one.tokens) + len(answer) <= llm.model.config.context_length:
            pairs.setdefault(one.item.task, []).append((one.tokens, answer))
    sizes = plan.block_sizes or (llm.model.config.block_size or 1,)
    found = []
    for task, own in pairs.items():
        made = likelihood(llm, own, sizes, plan.draws, plan.seed)
        found.append({
            "task": task, "n": len(own), "ar": None if made.nll is None else asdict(made.nll),
            "bounds": [asdict(bound) for bound in made.bounds], "refused": list(made.refused),
        })  # fmt: skip
    return found


def save(report: Evaluation, out: Path, plots: bool) -> None:
    """report.json, report.md and, if asked for, the pictures. Raises StorageError for a full disk."""
    write(out / REPORT, json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    write(out / TABLE, markdown(report))
    if plots:
        from trimode.evaluation.plots import draw

        draw(report, out / PLOTS)
