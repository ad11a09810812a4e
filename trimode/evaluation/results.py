"""The last steps of an evaluation: the likelihood of the references, kept by task; the report and its files."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trimode.api import LLM
from trimode.config import ModelConfig
from trimode.evaluation.asking import Asked
from trimode.evaluation.likelihood import Pair, likelihood
from trimode.evaluation.plan import ModeSpec, Plan, bound_sizes
from trimode.evaluation.records import Name, Record, write
from trimode.evaluation.report import Evaluation, areas, rows
from trimode.evaluation.tables import markdown

LIKELIHOOD, REPORT, TABLE, PLOTS = "likelihood.json", "report.json", "report.md", "plots"


def put_together(
    config: ModelConfig, modes: Sequence[ModeSpec], everything: Sequence[Asked], there: Mapping[Name, Record],
    likely: list[dict[str, Any]], about: dict[str, Any],
) -> Evaluation:  # fmt: skip
    """The report of all records, which must be there."""
    keys: dict[str, list[str]] = {}
    for one in everything:
        keys.setdefault(one.item.task, []).append(one.item.key)
    lines = rows(modes, config, keys, there)
    return Evaluation(
        checkpoint=about["checkpoint"], about=about, rows=lines, likelihood=likely, aup=areas(lines)
    )  # fmt: skip


def references(
    llm: LLM, plan: Plan, everything: Sequence[Asked], facts: Mapping[str, Any], out: Path
) -> list[dict[str, Any]]:
    """By task, how likely the model finds the right answers; those the context does not hold are left out.

    What a run before has computed for the same `facts`, answers, block sizes and draws is taken from likelihood.json.
    """
    pairs: dict[str, list[Pair]] = {}
    for one in everything:
        answer = llm.tokenizer.encode(one.item.reference) if one.item.reference else []
        if answer and len(one.tokens) + len(answer) <= llm.model.config.context_length:
            pairs.setdefault(one.item.task, []).append((one.tokens, answer))
    path, sizes = out / LIKELIHOOD, bound_sizes(plan, llm.model.config)
    there, used = kept(path), []
    for task, own in pairs.items():
        name = hashlib.sha256(json.dumps([facts, task, own, sizes, plan.draws]).encode()).hexdigest()
        if name not in there:
            there[name] = {"task": task, "n": len(own)} | estimates(llm, plan, own, sizes)
            write(path, json.dumps(there) + "\n")
        used.append(there[name])
    return used


def kept(path: Path) -> dict[str, Any]:
    """What the file of likelihoods holds by digest; nothing if it is not there, or no such file."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def estimates(llm: LLM, plan: Plan, pairs: Sequence[Pair], sizes: Sequence[int]) -> dict[str, Any]:
    """The exact value and the bounds of pairs, as JSON has them."""
    made = likelihood(llm, pairs, sizes, plan.draws, plan.seed, adapter=plan.adapter)
    found: dict[str, Any] = json.loads(json.dumps({
        "ar": None if made.nll is None else asdict(made.nll),
        "bounds": [asdict(bound) for bound in made.bounds], "refused": list(made.refused),
    }))  # fmt: skip
    return found


def save(report: Evaluation, out: Path, plots: bool) -> None:
    """report.json, report.md and, if asked for, the pictures. Raises StorageError for a full disk."""
    write(out / REPORT, json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    write(out / TABLE, markdown(report))
    if plots:
        from trimode.evaluation.plots import draw

        draw(report, out / PLOTS)
