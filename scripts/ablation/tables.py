"""Results -> the tables of docs/ablations.md, between its markers. Pure functions of results.json; runs nothing."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.ablation.claims import CLAIMS, Claim, verdict
from scripts.ablation.layout import Plan
from scripts.ablation.settings import BY_NAME, RUNS, SETTINGS, TASKS, modes
from trimode.evaluation.intervals import Interval, Z, paired_difference, ratio, share

Result = Mapping[str, Any]
Items = list[tuple[float, float]]  # per prompt, what a ratio of sums is made of
MODES = ("ar", "diffusion", "linear", "pruned", "quadratic")
NOT_YET = "not run yet"


def read_results(out: Path) -> dict[str, Result]:
    """By the names of runs, those that are measured."""
    found = (out / run.name / "results.json" for run in RUNS)
    return {path.parent.name: json.loads(path.read_text("utf-8")) for path in found if path.exists()}


def sums(result: Result, kind: str, mode: str) -> Items:
    """(numerator, denominator) of every prompt. What had no verify forward adds nothing to an acceptance length."""
    if kind in ("NLL", "NELBO 16"):
        return list(zip(result["nll" if kind == "NLL" else "nelbo"], result["answer_tokens"], strict=True))
    above, below = {"accuracy": ("right", None), "tokens per forward": ("tokens", "forwards"),
                    "acceptance length": ("gained", "verified")}[kind]  # fmt: skip
    return [(one[above], 1 if below is None else one[below]) for one in result["modes"][mode]]


def value(result: Result, kind: str, mode: str = "") -> Interval | None:
    """With its 95 % interval over prompts; None where there is nothing to divide by."""
    items = sums(result, kind, mode)
    if kind == "accuracy":
        return share(round(sum(a for a, _ in items)), len(items))
    return ratio([a for a, _ in items], [b for _, b in items]) if sum(b for _, b in items) else None


def difference(first: Result, second: Result, kind: str, mode: str) -> Interval | None:
    """`first` minus `second` over the same prompts, accuracies in points; None where one has no value.

    Accuracies as `paired_difference`; of two ratios of sums by the delta method: every prompt's part in either is
    (a - ratio * b) / mean of b, and the standard error is that of the mean of their differences.
    """
    one, two = sums(first, kind, mode), sums(second, kind, mode)
    if kind == "accuracy":
        found = paired_difference([a > 0 for a, _ in one], [a > 0 for a, _ in two])
        return Interval(value=100 * found.value, low=100 * found.low, high=100 * found.high)
    if not sum(b for _, b in one) or not sum(b for _, b in two):
        return None
    (ratio_1, parts_1), (ratio_2, parts_2) = _parts(one), _parts(two)
    n = len(parts_1)
    squares = sum((a - b) ** 2 for a, b in zip(parts_1, parts_2, strict=True))
    half = Z * math.sqrt(squares / max(n - 1, 1) / n)
    return Interval(value=ratio_1 - ratio_2, low=ratio_1 - ratio_2 - half, high=ratio_1 - ratio_2 + half)


def _parts(items: Items) -> tuple[float, list[float]]:
    below = sum(b for _, b in items)
    middle = sum(a for a, _ in items) / below
    return middle, [(a - middle * b) * len(items) / below for a, b in items]


def spoken(interval: Interval | None, scale: float = 1.0, digits: int = 2, sign: str = "") -> str:
    """87.2 [84.0, 89.9]"""
    if interval is None:
        return "none"
    numbers = (scale * number for number in (interval.value, interval.low, interval.high))
    middle, low, high = (f"{number:{sign}.{digits}f}" for number in numbers)
    return f"{middle} [{low}, {high}]"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def per_run(results: Mapping[str, Result], head: Sequence[str], cells: Any) -> str:
    """A row for every run; those not measured say so."""
    rows = []
    for run in RUNS:
        assert run.setting is not None
        result = results.get(run.name)
        found = [NOT_YET] + [""] * (len(head) - 1) if result is None else cells(result)
        rows.append([run.setting.value, str(run.seed), *found])
    return table(["setting", "seed", *head], rows)


def accuracies(results: Mapping[str, Result]) -> str:
    def cells(result: Result) -> list[str]:
        same = [sum(one["same"] for one in result["modes"][mode]) for mode in MODES[2:]]
        n = len(result["modes"]["ar"])
        return [
            *(spoken(value(result, "accuracy", mode), 100, 1) for mode in MODES),
            f"{', '.join(map(str, same))} of {n}",
            spoken(value(result, "NLL"), digits=4), spoken(value(result, "NELBO 16"), digits=4),
        ]  # fmt: skip

    return per_run(results, [*(f"{mode}, %" for mode in MODES), "texts of ar", "AR NLL", "NELBO 16"], cells)


def speeds(results: Mapping[str, Result]) -> str:
    def cells(result: Result) -> list[str]:
        rates = [spoken(value(result, "tokens per forward", mode)) for mode in MODES]
        return rates + [spoken(value(result, "acceptance length", mode)) for mode in MODES[2:]]

    return per_run(results, [*MODES, *(f"accepted, {mode}" for mode in MODES[2:])], cells)


def judged(results: Mapping[str, Result]) -> str:
    """A row for every published direction."""
    head = ["question", "what", "published", "here, by seed", "verdict"]
    return table(head, [_judged(results, claim) for claim in CLAIMS])


def _judged(results: Mapping[str, Result], claim: Claim) -> list[str]:
    first, second = BY_NAME[claim.first], BY_NAME[claim.second]
    group = first.group if first.group != "baseline" else second.group
    seeds = [seed for seed in first.seeds if seed in second.seeds]
    pairs = [(results.get(f"{claim.first}-s{seed}"), results.get(f"{claim.second}-s{seed}")) for seed in seeds]
    found = [difference(a, b, claim.kind, claim.mode) for a, b in pairs if a is not None and b is not None]
    differences = [one for one in found if one is not None]
    is_whole = len(differences) == len(pairs)
    what = f"{claim.kind}, {claim.mode}: {_short(claim.first)} minus {_short(claim.second)}"
    digits = 1 if claim.kind == "accuracy" else 2
    here = "; ".join(spoken(one, digits=digits, sign="+") for one in differences)
    said = verdict(differences, claim.sign) if is_whole else "no value" if len(found) == len(pairs) else NOT_YET
    return [group, what, claim.published, here if is_whole else NOT_YET if said == NOT_YET else "none", said]


def _short(name: str) -> str:
    return "baseline" if name == "baseline" else BY_NAME[name].value


def setting(plan: Plan | None, results: Mapping[str, Result]) -> str:
    """What the numbers were measured on, in a sentence; nothing where there are none."""
    if plan is None or not results:
        return "Nothing has been run yet."
    one = next(iter(results.values()))
    tokens = sorted(result["trained"]["tokens"] for name, result in results.items() if not name.startswith("drafter"))
    return (
        f"{one['parameters']:,} parameters; {plan.ar_steps} AR steps per seed, then {plan.joint_steps} joint steps per "
        f"setting ({tokens[0]:,} to {tokens[-1]:,} learned tokens), the drafter {plan.drafter_steps}; "
        f"{plan.prompts} held-out prompts of each task ({', '.join(TASKS)}); {plan.draws} draws per NELBO. "
        f"Measured with {one['machine']}."
    )


def written(text: str, plan: Plan | None, results: Mapping[str, Result]) -> str:
    """The document with what stands between `<!-- name -->` and `<!-- end -->` made anew."""
    parts = {"setting": setting(plan, results), "accuracy": accuracies(results), "speed": speeds(results),
             "published": judged(results)}  # fmt: skip
    for name, part in parts.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"the document has no <!-- {name} --> ... <!-- end -->")
        text = pattern.sub(lambda found, part=part: f"{found[1]}{part}\n{found[2]}", text)  # type: ignore[misc]
    return text


assert all(list(modes(setting)) == list(MODES) for setting in SETTINGS)
