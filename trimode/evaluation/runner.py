"""An evaluation from plan to report: every item in all modes one after the other, each answer kept as it comes.

So what the machine does meanwhile hits all modes alike. A run that was cut off goes on where it stopped.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from trimode.api import LLM
from trimode.errors import InvalidInput
from trimode.evaluation.asking import Asked, answered, ask, asked, refusal, refused, warm
from trimode.evaluation.infilling import layout
from trimode.evaluation.origin import checkpoint_name, origin
from trimode.evaluation.plan import ModeSpec, Plan, bound_sizes, specs
from trimode.evaluation.records import FORMAT, Record, Records, opened
from trimode.evaluation.report import Evaluation
from trimode.evaluation.results import put_together, references, save
from trimode.evaluation.suites import Suite, suites

__all__ = ["Plan", "Silent", "Tell", "evaluate"]

Group = list[Asked]


class Tell(Protocol):
    """What somebody who watches hears."""

    def note(self, sentence: str) -> None:
        """Something worth a line."""

    def advance(self, done: int, total: int, task: str) -> None:
        """So many of all answers are there; the last was of this task."""


class Silent:
    """Nobody watches."""

    def note(self, sentence: str) -> None:
        pass

    def advance(self, done: int, total: int, task: str) -> None:
        pass


SILENT = Silent()


def evaluate(
    llm: LLM, plan: Plan, out: Path, *, own: Sequence[Suite] = (), tell: Tell = SILENT, command: str | None = None
) -> Evaluation:
    """Run what of `plan` is not yet in `out`, judge it, and write report.json, report.md and, if asked for, plots.

    `own`: suites in place of those that the plan names.

    Raises InvalidInput, before anything is generated, for a task, mode or file that cannot be had, or a folder that
    holds another evaluation; StorageError for a full disk, which leaves what is there.
    """
    if plan.plots and find_spec("matplotlib") is None:
        raise InvalidInput("plots need matplotlib: pip install 'trimode[train]'")
    modes = specs(plan, llm.model.config)
    bound_sizes(plan, llm.model.config)
    chosen = own or suites(plan.tasks, plan.data_dir, chat=plan.chat, allow_unsandboxed=plan.allow_unsandboxed)
    everything = [one for suite in chosen for one in prompts(llm, plan, suite)]
    facts = description(llm, plan, modes, everything)
    with opened(out, facts, tell.note) as records:
        generate(llm, plan, modes, everything, records, tell)
        tell.note("all answers are there, now the report")
        likely = references(llm, plan, everything, facts, out) if plan.likelihood else []
        name = checkpoint_name(llm, plan.adapter)
        about = {"checkpoint": name, "date": date.today().isoformat(), "command": command, **facts}
        made = put_together(llm.model.config, modes, everything, records.there, likely, about)
        save(made, out, plots=plan.plots)
    return made


def prompts(llm: LLM, plan: Plan, suite: Suite) -> list[Asked]:
    """The items of a suite as the model gets them.

    Raises InvalidInput for a suite without any, two items of one name, or none that the context can hold.
    """
    items = [asked(llm, suite, item, plan.chat) for item in suite.items(plan.limit, plan.seed)]
    if not items:
        raise InvalidInput(f"task {suite.name!r} has no items")
    if len({_name(one) for one in items}) < len(items):
        raise InvalidInput(f"task {suite.name!r} has two items of the same name")
    if all(refusal(llm, one) for one in items):
        raise InvalidInput(f"task {suite.name!r} cannot be asked: {refusal(llm, items[0])}, and so with all others")
    return items


def description(llm: LLM, plan: Plan, modes: Sequence[ModeSpec], everything: Sequence[Asked]) -> dict[str, Any]:
    """All that the answers and their times depend on, the prompts themselves as a digest."""
    said = json.dumps([[*_name(one), one.tokens, one.item.max_tokens, one.item.stop] for one in everything])
    return origin(llm, plan.adapter) | {
        "format": FORMAT,
        "tasks": list(dict.fromkeys(one.suite.name for one in everything)),
        "modes": [spec.name for spec in modes],
        "limit": plan.limit, "seed": plan.seed, "batch": plan.batch, "repeats": plan.repeats,
        "max_tokens": plan.max_tokens, "chat": plan.chat, "items": len(everything),
        "infilling": layout(llm.tokenizer) if any("suffix" in one.item.facts for one in everything) else None,
        "prompts_sha256": hashlib.sha256(said.encode()).hexdigest(),
    }  # fmt: skip


def generate(
    llm: LLM, plan: Plan, modes: Sequence[ModeSpec], everything: Sequence[Asked], records: Records, tell: Tell
) -> None:
    """Every answer that is not there yet, into `records`."""
    total, is_warm = len(everything) * len(modes), False
    if records.there:
        tell.note(f"{len(records.there)} of {total} answers are there from before")
    for group in groups(everything, plan.batch):
        missing = {spec.name: [one for one in group if (spec.name, *_name(one)) not in records.there] for spec in modes}
        askable = keep_askable(llm, modes, missing, records.append)
        if any(askable.values()) and not is_warm:
            is_warm = True
            for spec in modes:
                warm(llm, spec, next(one for ones in askable.values() for one in ones), plan)
        for record in interleaved(llm, plan, modes, askable):
            records.append(record)
            tell.advance(len(records.there), total, record["task"])


def groups(everything: Sequence[Asked], size: int) -> Iterator[Group]:
    """Items that share an engine: so many in a row, all of one suite."""
    group: Group = []
    for one in everything:
        if group and (len(group) == size or group[-1].suite is not one.suite):
            yield group
            group = []
        group.append(one)
    yield group


def keep_askable(
    llm: LLM, modes: Sequence[ModeSpec], missing: dict[str, Group], append: Callable[[Record], None]
) -> dict[str, Group]:
    """What of a group is to be asked, by mode; the rest is recorded as refused."""
    for spec in modes:
        for one in missing[spec.name]:
            if why := refusal(llm, one):
                append(refused(spec, one, why))
    return {name: [one for one in ones if refusal(llm, one) is None] for name, ones in missing.items()}


def interleaved(llm: LLM, plan: Plan, modes: Sequence[ModeSpec], missing: dict[str, Group]) -> Iterator[Record]:
    """A group in all modes in turn, that again for every repeat; records come with the last of them."""
    seconds: dict[str, list[float]] = {spec.name: [] for spec in modes}
    for repeat in range(plan.repeats):
        for spec in modes:
            if not missing[spec.name]:
                continue
            answers, each = ask(llm, spec, missing[spec.name], plan)
            seconds[spec.name].append(each)
            if repeat == plan.repeats - 1:
                for one, done in zip(missing[spec.name], answers, strict=True):
                    yield answered(spec, one, done, seconds[spec.name])


def _name(one: Asked) -> tuple[str, str]:
    return one.item.task, one.item.key
