"""Curves of a run from its metrics.jsonl files: loss parts, learning rate, gradient norm, speed. Knows no model.

Stages stand one after the other on one axis of steps, each shifted by the steps of those before it.
"""

import json
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimode.errors import InvalidInput

FILE = "metrics.jsonl"
PLAIN = frozenset({"step", "epoch", "norm", "rate", "tokens", "tokens_per_second", "seconds"})  # the rest are losses
HELDOUT = "heldout_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """One stage: its lines in order of steps, and the numbers of the lines of its file that could not be read."""

    name: str
    lines: tuple[dict[str, float], ...]
    damaged: tuple[int, ...] = ()

    @property
    def last(self) -> float:
        return self.lines[-1]["step"]

    def of(self, name: str) -> tuple[list[float], list[float]]:
        """Steps and values of one number, where it was logged."""
        points = [(line["step"], line[name]) for line in self.lines if name in line]
        return [step for step, _ in points], [number for _, number in points]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What was drawn, and what a reader should be told about it."""

    path: Path
    stages: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())


def plot(run: Path, out: Path) -> Picture:
    """Draw the stages of a run folder, or the one stage that the folder is, to a picture; its ending names the kind."""
    stages = read(run)
    _draw(stages, out)
    notes = tuple(_note(stage) for stage in stages if stage.damaged)
    return Picture(path=out, stages=tuple(stage.name for stage in stages), notes=notes)


def _note(stage: Curves) -> str:
    first = ", ".join(map(str, stage.damaged[:5])) + (", ..." if len(stage.damaged) > 5 else "")
    n = len(stage.damaged)
    return f"{stage.name}/{FILE}: skipped {n} damaged line{'s' if n > 1 else ''}: {first}"


def read(run: Path) -> list[Curves]:
    """Stages with metrics: in the order of their recipe; of several recipes, as they ended; of none, by name."""
    if not run.is_dir():
        raise InvalidInput(f"{run}: no such run folder")
    files = [path for path in (run / FILE, *sorted(run.glob(f"*/{FILE}"))) if path.is_file()]
    read = (parse(path.resolve().parent.name, path.read_bytes()) for path in files)
    order = _order(files)
    stages = [stage for stage in sorted(read, key=lambda each: order.get(each.name, len(order))) if stage.lines]
    if not stages:
        raise InvalidInput(f"{run}: no metrics; a run writes RUN/STAGE/{FILE} while it trains")
    return stages


def parse(name: str, content: bytes) -> Curves:
    """Lines of a file. A step that was done again counts as it was done last."""
    by_step: dict[float, dict[str, float]] = {}
    damaged = []
    for number, raw in enumerate(content.splitlines(), 1):
        line = _parsed(raw)
        if line is None:
            damaged.append(number)
        else:
            by_step[line["step"]] = line
    return Curves(name=name, lines=tuple(by_step[step] for step in sorted(by_step)), damaged=tuple(damaged))


def _parsed(raw: bytes) -> dict[str, float] | None:
    try:
        fields = json.loads(raw)
    except ValueError:  # a torn line, or bytes that are no text
        return None
    if not isinstance(fields, dict) or not all(isinstance(x, int | float) for x in fields.values()):
        return None
    return fields if "step" in fields else None


def _order(files: Sequence[Path]) -> dict[str, int]:
    """The place of every stage; none where there is no readable recipe."""
    recipes = [named for path in files if (named := _named(path.parent / "recipe.toml"))]
    if len(set(recipes)) < 2:
        return {name: index for index, name in enumerate(recipes[0] if recipes else ())}
    ended = sorted(files, key=lambda path: path.stat().st_mtime_ns)
    return {path.resolve().parent.name: index for index, path in enumerate(ended)}


def _named(recipe: Path) -> tuple[str, ...]:
    """The stages of a recipe; none where it cannot be read."""
    try:
        return tuple(str(stage["name"]) for stage in tomllib.loads(recipe.read_text("utf-8"))["stage"])
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def _draw(stages: Sequence[Curves], out: Path) -> None:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise InvalidInput("plotting needs matplotlib: pip install 'trimode[train]'") from None
    figure = Figure(figsize=(11, 9), layout="constrained", dpi=120)
    canvas = FigureCanvasAgg(figure)
    losses, rate, norm, speed = figure.subplots(4, 1, sharex=True, height_ratios=(3, 1, 1, 1))
    _losses(losses, stages)
    for axis, name, label in ((rate, "rate", "learning rate"), (norm, "norm", "gradient norm"),
                              (speed, "tokens_per_second", "tokens/s")):  # fmt: skip
        for stage, start in _shifted(stages):
            _curve(axis, stage, start, name, color="0.25", linewidth=1.2)
        axis.set_ylabel(label)
    for axis in (norm, speed):
        axis.margins(y=0.15)
        axis.set_ylim(bottom=0)
    speed.set_xlabel("step")
    figure.align_ylabels()
    for axis in (losses, rate, norm, speed):
        axis.grid(alpha=0.25)
        axis.margins(x=0.01)
        for _, start in _shifted(stages)[1:]:
            axis.axvline(start, color="0.6", linewidth=1, linestyle="--")
    for stage, start in _shifted(stages):
        losses.annotate(stage.name, (start, 1.0), (4, 4), xycoords=("data", "axes fraction"),
                        textcoords="offset points", fontweight="bold")  # fmt: skip
    _save(canvas, out)


def _losses(axis: Any, stages: Sequence[Curves]) -> None:
    """The whole in grey, every part in a colour of its own, held-out parts dashed in the colour of their part."""
    parts = list(dict.fromkeys(name.removeprefix(HELDOUT) for stage in stages for name in _parts(stage)))
    colours = dict(zip([part for part in parts if part != "loss"], (f"C{i}" for i in range(len(parts))), strict=False))
    for stage, start in _shifted(stages):
        for name in _parts(stage):
            dashes = {"linestyle": "--", "marker": "o", "markersize": 4} if name.startswith(HELDOUT) else {}
            colour = colours.get(name.removeprefix(HELDOUT), "0.6")
            _curve(axis, stage, start, name, color=colour, linewidth=1.4, label=name.replace("_", " "), **dashes)
    by_label = dict(zip(*axis.get_legend_handles_labels()[::-1], strict=True))
    if by_label:
        axis.legend(by_label.values(), by_label.keys(), loc="upper right")
    axis.set_ylabel("loss")


def _curve(axis: Any, stage: Curves, start: float, name: str, **look: Any) -> None:
    """One number of one stage; a single value as a point."""
    steps, values = stage.of(name)
    axis.plot([start + step for step in steps], values, **({"marker": "o"} if len(steps) == 1 else {}) | look)


def _parts(stage: Curves) -> Iterator[str]:
    return iter(dict.fromkeys(name for line in stage.lines for name in line if name not in PLAIN))


def _shifted(stages: Sequence[Curves]) -> list[tuple[Curves, float]]:
    """Each stage with the steps done before it."""
    starts, total = [], 0.0
    for stage in stages:
        starts.append((stage, total))
        total += stage.last
    return starts


def _save(canvas: Any, out: Path) -> None:
    kinds = canvas.get_supported_filetypes()
    if out.suffix[1:].lower() not in kinds:
        raise InvalidInput(f"{out}: allowed endings are {', '.join('.' + kind for kind in sorted(kinds))}")
    canvas.print_figure(out)
