"""Records in, report out: what answers were worth and cost by task and mode, as one JSON value. Generates nothing."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, TypedDict, cast

from trimode.config import ModelConfig
from trimode.decoding import build
from trimode.errors import InvalidInput
from trimode.evaluation.metrics import Answer, Bounds, Row, aup, bounds, measured, paired_difference
from trimode.evaluation.plan import ModeSpec
from trimode.evaluation.records import Name, Record
from trimode.evaluation.suites import WIDE
from trimode.evaluation.tasks import TASKS
from trimode.numerics.parameters import PARAMETERS

AR = "ar"
ALL = "all"  # the task name of all judged tasks together


class Line(Row):
    """A row of the report with what only a whole evaluation knows. Speeds are medians of the repeats."""

    refused: int  # items whose prompt the context cannot hold: wrong where answers are judged, else left out
    tokens: int
    forwards: dict[str, int]  # by kind, and their `total`
    speeds: list[float]  # tokens/s of every repeat
    tokens_per_second: float | None
    characters_per_second: float | None
    difference_to_ar: Bounds | None  # of accuracies, on the same items


class Evaluation(TypedDict):
    """report.json. Every figure is over all items of its row; docs/evaluation.md has the definitions."""

    checkpoint: str
    about: dict[str, Any]  # the plan, checkpoint, software and machine
    rows: list[Line]
    likelihood: list[dict[str, Any]]
    aup: dict[str, float]  # by task, of the diffusion thresholds


def rows(
    modes: Sequence[ModeSpec], config: ModelConfig, keys: Mapping[str, Sequence[str]], there: Mapping[Name, Record]
) -> list[Line]:
    """One row per task and mode, then those of the groups. keys: those of every task's items.

    Raises InvalidInput where a record is missing: a report of a part would pass for the whole.
    """
    settings = [(task, spec.name) for task in keys for spec in modes]
    picked = {(task, mode): [_found(there, mode, task, key) for key in keys[task]] for task, mode in settings}
    found = []
    for group, tasks in {**{task: [task] for task in keys}, **grouped(picked, list(keys))}.items():
        plain = [record for task in tasks for record in picked.get((task, AR), [])]
        for spec in modes:
            chosen = [record for task in tasks for record in picked[task, spec.name]]
            found.append(line(group, spec, config, chosen, plain))
    return found


def grouped(picked: Mapping[tuple[str, str], Sequence[Record]], tasks: Sequence[str]) -> dict[str, list[str]]:
    """The judged tasks together, and the procedural and the wide ones where there are others beside them."""
    judged = {task for (task, _), records in picked.items() if any(r["verdict"] is not None for r in records)}
    named = {
        "procedural": [task for task in tasks if task in TASKS],
        "wide": [task for task in tasks if task.removesuffix(WIDE) in TASKS and task not in TASKS],
        ALL: [task for task in tasks if task in judged],
    }
    distinct: dict[str, list[str]] = {}
    for name, members in named.items():
        if len(members) > 1 and (name == ALL or len(members) < len(named[ALL])):
            distinct[name] = members
    return distinct


def line(task: str, spec: ModeSpec, config: ModelConfig, records: Sequence[Record], plain: Sequence[Record]) -> Line:
    """The row of these records; `plain` are those of `ar` on the same items, or nothing. All may have been refused."""
    baseline = plain if spec.name != AR else [None] * len(records)
    pairs = list(zip(records, baseline or [None] * len(records), strict=True))
    kept = [(record, other) for record, other in pairs if "refused" not in record or record["verdict"] is not None]
    measures = measured([answer(record, other) for record, other in kept])
    asked = [record for record in records if "refused" not in record]
    decoder: Any = build(spec.mode, config, **{k: v for k, v in spec.options.items() if k not in PARAMETERS})
    placing = {
        "task": task, "setting": spec.name, "mode": spec.mode,
        "placement": getattr(decoder, "placement", None), "threshold": getattr(decoder, "confidence_threshold", None),
    }  # fmt: skip
    more = {"refused": len(records) - len(asked), "difference_to_ar": difference(kept)}
    return cast(Line, placing | measures | costs(asked) | more)


def costs(records: Sequence[Record]) -> dict[str, Any]:
    """Tokens, forwards and speeds of answers together; without answers there is no speed."""
    tokens, characters = sum(r["completion_tokens"] for r in records), sum(len(r["text"]) for r in records)
    repeats = range(min((len(record["seconds"]) for record in records), default=0))
    seconds = [sum(record["seconds"][repeat] for record in records) for repeat in repeats]
    return {
        "tokens": tokens, "forwards": total_forwards(records), "speeds": [tokens / s for s in seconds],
        "tokens_per_second": median(tokens / s for s in seconds) if seconds else None,
        "characters_per_second": median(characters / s for s in seconds) if seconds else None,
    }  # fmt: skip


def answer(record: Record, plain: Record | None) -> Answer:
    """A record as the numbers of it, compared with that of `ar`; one that was refused cost and made nothing."""
    if "refused" in record:
        return Answer(tokens=0, forwards={}, correct=record["verdict"])
    verifying = record["forwards"].get("verify", 0)
    return Answer(
        tokens=record["completion_tokens"], forwards=record["forwards"], correct=record["verdict"],
        verify_tokens=round((record["acceptance_length"] or 0.0) * verifying),
        positions=tuple((place[0], place[1], place[2]) for place in record["acceptance"] or ()),
        same_as_ar=None if plain is None or "refused" in plain else record["token_ids"] == plain["token_ids"],
    )  # fmt: skip


def difference(pairs: Sequence[tuple[Record, Record | None]]) -> Bounds | None:
    """Accuracy minus that of `ar` on the items both were judged on; None where there are none."""
    both = [(a["verdict"], b["verdict"]) for a, b in pairs if b is not None and a["verdict"] is not None]
    if not both:
        return None
    return bounds(paired_difference([a for a, _ in both], [b for _, b in both]))


def total_forwards(records: Sequence[Record]) -> dict[str, int]:
    """Forwards by kind, and their `total`."""
    sums: dict[str, int] = {}
    for record in records:
        for kind, n in record["forwards"].items():
            sums[kind] = sums.get(kind, 0) + n
    return sums


def areas(lines: Sequence[Line]) -> dict[str, float]:
    """AUP by task over the diffusion settings that differ in their threshold; the best accuracy is that of any mode."""
    found = {}
    for task in dict.fromkeys(row["task"] for row in lines):
        judged = [(row, row["accuracy"]["value"]) for row in lines if row["task"] == task and row["accuracy"]]
        best = max((value for _, value in judged), default=0.0)
        points = list(_points(judged))
        if len(points) > 1 and best > 0:
            found[task] = aup(points, best)
    return found


def _points(judged: Sequence[tuple[Line, float]]) -> Iterator[tuple[float, float]]:
    for row, value in judged:
        names = (row["mode"], f"{row['mode']}:confidence_threshold={row['threshold']}")
        speed = row["tokens_per_forward"]
        if speed and row["threshold"] is not None and row["setting"] in names:
            yield speed["value"], value


def _found(there: Mapping[Name, Record], mode: str, task: str, key: str) -> Record:
    if (mode, task, key) not in there:
        raise InvalidInput(f"the answer of mode {mode} to item {key!r} of task {task!r} is missing")
    return there[mode, task, key]
