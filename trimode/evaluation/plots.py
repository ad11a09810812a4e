"""Pictures of a report: accuracy against tokens per forward, acceptance by position, bars by task. Measures nothing.

A colour and a marker stand for one setting in every picture of a report; colours are those of Okabe and Ito, which
colour-blind readers tell apart, with a grey for their black. Settings that differ in `confidence_threshold` alone are a
line.
"""

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trimode.errors import InvalidInput, StorageError
from trimode.evaluation.metrics import Bounds, Row

COLOURS = ("#4D4D4D", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999933")
MARKERS = "osD^vP*X"
GROUPS = ("procedural", "wide", "all")  # rows that sum up others
USUAL = 0.9  # the threshold that stands for a sweep where it has no row without one
ERRORS = "thin bars: 95 % intervals over items"
FEWEST = 20  # drafts behind a drawn share


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How a setting is drawn."""

    name: str
    colour: str
    marker: str
    hatch: str  # of its bars, where there are more settings than colours


def draw(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Every picture that the rows of a report have numbers for, as PNG files; which they are.

    Raises InvalidInput without matplotlib, StorageError where a file cannot be written.
    """
    rows: Sequence[Row] = report["rows"]
    checkpoint, looks, made = str(report["checkpoint"]), _looks(rows), []
    for task in _overview(rows):
        own, ending = [row for row in rows if row["task"] == task], re.sub(r"\W+", "-", task)
        if any(map(_has_both, own)):
            made.append(accuracy_and_speed(own, checkpoint, looks, folder / f"accuracy-{ending}.png"))
        if any(row["acceptance"] for row in own):
            made.append(acceptance(own, checkpoint, looks, folder / f"acceptance-{ending}.png"))
    if rows:
        made.append(by_task(rows, checkpoint, looks, folder / "tasks.png"))
    return made


def accuracy_and_speed(rows: Sequence[Row], checkpoint: str, looks: Mapping[str, Look], out: Path) -> Path:
    """One task: a point per setting with both its intervals, a line per sweep with the threshold at each point."""

    def paint(figure: Any) -> None:
        axis = figure.subplots()
        judged = [row for row in rows if _has_both(row)]
        for key in dict.fromkeys(map(_key, judged)):
            _sweep(axis, [row for row in judged if _key(row) == key], looks[key])
        axis.set(xlabel="tokens per forward", ylabel="accuracy, %")
        axis.set_xlim(left=min(0.8, axis.get_xlim()[0]))
        axis.set_ylim(top=min(102.0, axis.get_ylim()[1]))
        figure.legend(loc="outside lower center", fontsize=8)
        _title(axis, f"Accuracy and speed, {rows[0]['task']}", checkpoint, judged, ERRORS)

    return _picture(out, (8.0, 5.6), paint)


def acceptance(rows: Sequence[Row], checkpoint: str, looks: Mapping[str, Look], out: Path) -> Path:
    """One task: in which share of all drafts the guesses held up to a place, and how often each did once reached."""

    def paint(figure: Any) -> None:
        axis = figure.subplots()
        drafting = [row for row in _representatives(rows) if row["acceptance"]]
        for row in drafting:
            look, length = looks[_key(row)], row["acceptance_length"]
            label = look.name + (f", {length['value']:.2f} tokens per verify forward" if length else "")
            places = [place for place in row["acceptance"] if place["reached"] >= FEWEST]
            at, drawn = [place["position"] for place in row["acceptance"]], {"color": look.colour, "markersize": 4}
            axis.plot(at, [100 * p["of_drafts"] for p in row["acceptance"]], marker=look.marker, label=label, **drawn)
            axis.plot([p["position"] for p in places], [100 * (p["of_reached"] or 0) for p in places], "--", **drawn)
        axis.set(xlabel="place of the guess in its draft", ylabel="accepted, %", ylim=(0, 102))
        axis.xaxis.get_major_locator().set_params(integer=True)
        figure.legend(loc="outside lower center", fontsize=8)
        note = f"solid: of all drafts; dashed: of those where all guesses before held, if at least {FEWEST}"
        _title(axis, f"Acceptance by position, {rows[0]['task']}", checkpoint, drafting, note)

    return _picture(out, (8.0, 5.2), paint)


def by_task(rows: Sequence[Row], checkpoint: str, looks: Mapping[str, Look], out: Path) -> Path:
    """Tokens per forward and accuracy of every task, a bar per setting; a sweep is its usual threshold."""
    chosen = _representatives(rows)
    named = dict.fromkeys(row["task"] for row in chosen)
    tasks, keys = sorted(named, key=lambda task: task not in GROUPS), list(dict.fromkeys(map(_key, chosen)))
    thick = 0.8 / len(keys)

    def paint(figure: Any) -> None:
        speed, right = figure.subplots(1, 2, sharey=True)
        for rank, key in enumerate(keys):
            own = {row["task"]: row for row in chosen if _key(row) == key}
            at = [tasks.index(task) + (rank + 0.5) * thick - 0.4 for task in own]
            look = replace(looks[key], name=next(iter(own.values()))["setting"])
            _bars(speed, at, [row["tokens_per_forward"] for row in own.values()], 1, thick, look)
            _bars(right, at, [row["accuracy"] for row in own.values()], 100, thick, look)
        speed.set(xlabel="tokens per forward", ylim=(len(tasks) - 0.5, -0.5))
        speed.set_yticks(
            range(len(tasks)), [f"{task} ({_n([r for r in chosen if r['task'] == task])})" for task in tasks]
        )
        right.set(xlabel="accuracy, %", xlim=(0, 102))
        for task in tasks:
            if not any(row["accuracy"] for row in chosen if row["task"] == task):
                right.text(1, tasks.index(task), "not judged", va="center", color="0.4", fontsize=9)
        handles, labels = speed.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(keys)), fontsize=9)
        figure.suptitle(f"Every task in every setting\n{_wrapped(checkpoint)}\n{ERRORS}", fontsize=10)

    return _picture(out, (10.0, 1.6 + len(tasks) * (0.16 + 0.15 * len(keys))), paint)


def _sweep(axis: Any, rows: Sequence[Row], look: Look) -> None:
    """The rows of one line in order of their thresholds, each once, or one point."""
    ordered = [row for _, row in sorted({row["threshold"] or 0.0: row for row in rows}.items())]
    speeds = [row["tokens_per_forward"] for row in ordered if row["tokens_per_forward"]]
    shares = [row["accuracy"] for row in ordered if row["accuracy"]]
    x, y = [each["value"] for each in speeds], [100 * each["value"] for each in shares]
    axis.errorbar(
        x, y, xerr=_errors(speeds, 1), yerr=_errors(shares, 100), color=look.colour, marker=look.marker, markersize=6,
        linewidth=1.4, elinewidth=0.8, capsize=2,
        label=look.name + (", by confidence_threshold" if len(ordered) > 1 else ""),
    )  # fmt: skip
    if len(ordered) > 1:
        for at, height, row in zip(x, y, ordered, strict=True):
            axis.annotate(f"{row['threshold']:g}", (at, height), (5, 6), textcoords="offset points", fontsize=8,
                          color=look.colour)  # fmt: skip


def _bars(
    axis: Any, at: Sequence[float], found: Sequence[Bounds | None], scale: float, thick: float, look: Look
) -> None:
    there = [(place, each) for place, each in zip(at, found, strict=True) if each]
    bounds = [each for _, each in there]
    axis.barh(
        [place for place, _ in there], [scale * each["value"] for each in bounds], 0.9 * thick, color=look.colour,
        xerr=_errors(bounds, scale), error_kw={"elinewidth": 0.8}, label=look.name, hatch=look.hatch, edgecolor="white",
        linewidth=0,
    )  # fmt: skip


def _errors(bounds: Sequence[Bounds], scale: float) -> list[list[float]]:
    """Lengths of error bars below and above."""
    below = [scale * max(each["value"] - each["low"], 0.0) for each in bounds]
    return [below, [scale * max(each["high"] - each["value"], 0.0) for each in bounds]]


def _has_both(row: Row) -> bool:
    """Whether it was judged and run, so that it is a point of accuracy and speed."""
    return bool(row["accuracy"] and row["tokens_per_forward"])


def _key(row: Row) -> str:
    """A setting without its threshold: what the rows of a line share. `none` is another way of filling, so no point."""
    return re.sub(r"confidence_threshold=(?!none)[^,]*,?", "", row["setting"]).rstrip(":,")


def _looks(rows: Sequence[Row]) -> dict[str, Look]:
    keys = list(dict.fromkeys(map(_key, rows)))
    return {
        key: Look(
            name=key, colour=COLOURS[i % len(COLOURS)], marker=MARKERS[(i + i // len(COLOURS)) % len(MARKERS)],
            hatch="/" * (3 * (i // len(COLOURS))),
        )
        for i, key in enumerate(keys)
    }  # fmt: skip


def _overview(rows: Sequence[Row]) -> list[str]:
    """Tasks with pictures of their own: the sums where there are any, and what nobody judges, which is in no sum."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    sums = [task for task in tasks if task in GROUPS]
    judged = {row["task"] for row in rows if row["accuracy"]}
    return [task for task in tasks if task in sums or task not in judged or not sums]


def _representatives(rows: Sequence[Row]) -> list[Row]:
    """One row per task and line: that of the setting without a threshold of its own, or the one next to the usual."""
    nearest: dict[tuple[str, str], Row] = {}
    for row in sorted(rows, key=lambda row: (row["setting"] != _key(row), abs((row["threshold"] or USUAL) - USUAL))):
        nearest.setdefault((row["task"], _key(row)), row)
    chosen = [id(row) for row in nearest.values()]
    return [row for row in rows if id(row) in chosen]


def _title(axis: Any, what: str, checkpoint: str, rows: Sequence[Row], note: str) -> None:
    axis.set_title(f"{what}\n{_wrapped(f'{checkpoint}, {_n(rows)}')}\n{note}", fontsize=10)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100)


def _n(rows: Sequence[Row]) -> str:
    counts = sorted({row["n"] for row in rows})
    return f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"


def _picture(out: Path, size: tuple[float, float], paint: Callable[[Any], None]) -> Path:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise InvalidInput("plots need matplotlib: pip install 'trimode[train]'") from None
    figure = Figure(figsize=size, layout="constrained", dpi=120)
    canvas = FigureCanvasAgg(figure)
    paint(figure)
    for axis in figure.axes:
        axis.grid(alpha=0.25, axis="x" if axis.patches else "both")
        axis.set_axisbelow(True)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        canvas.print_figure(out)
    except OSError as error:
        raise StorageError(f"{out}: cannot be written ({error.strerror or error})") from error
    return out
