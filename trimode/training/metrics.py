"""What a run says while it trains: metrics.jsonl, TensorBoard and a line or a bar for who watches. Owns no clock.

Only rank 0 speaks. metrics.jsonl has each logged step once: lines of steps that a resumed run does again are dropped.
"""

import importlib.util
import json
import math
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

FILE = "metrics.jsonl"
Line = Mapping[str, float]


class Silent:
    """The metrics of every process but the first."""

    def log(self, line: Line) -> None:
        """Keep one step's numbers and show them."""

    def advance(self, step: int) -> None:
        """Show that so many steps are done."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:  # fmt: skip
        pass


class Metrics(Silent):
    """Of the stage `name` in `folder`, which goes on after `start` of `steps` steps, done in so many seconds."""

    def __init__(
        self, folder: Path, name: str, steps: int, start: int = 0, seconds: float = 0.0, tensorboard: bool = False
    ) -> None:
        self.path, self.name, self.steps = folder / FILE, name, steps
        self.last = (float(start), seconds)  # step and seconds of the last line
        drop_after(self.path, start)
        self.board = _board(folder / "tensorboard", start) if tensorboard else None
        self.console = Console(stderr=True, highlight=False)
        self.bar: Progress | None = None
        self.task = TaskID(0)
        if self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                       TimeRemainingColumn(), TextColumn("{task.fields[facts]}"))  # fmt: skip
            self.bar = Progress(*columns, console=self.console)
            self.task = self.bar.add_task(name, total=steps, completed=start, facts="")

    def __enter__(self) -> Self:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:  # fmt: skip
        if self.bar is not None:
            self.bar.stop()
        if self.board is not None:
            self.board.close()

    def advance(self, step: int) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=step)

    def log(self, line: Line) -> None:
        text = json.dumps(line, allow_nan=False)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")
        if self.board is not None:
            for name, number in line.items():
                self.board.add_scalar(name, number, int(line["step"]))
        if self.bar is not None:
            self.bar.update(self.task, completed=int(line["step"]), facts=spoken(line))
        else:
            done, seconds = line["step"] - self.last[0], line["seconds"] - self.last[1]
            left = (self.steps - line["step"]) * seconds / max(done, 1)
            print(f"{self.name} {line['step']}/{self.steps}  {spoken(line)}  {clock(left)} left", file=sys.stderr)
        self.last = (line["step"], line["seconds"])


def spoken(line: Line) -> str:
    """The numbers a person watches, in one line."""
    known = {"step", "epoch", "loss", "norm", "rate", "tokens", "tokens_per_second", "seconds"}
    parts = ", ".join(f"{name} {value:.3f}" for name, value in line.items() if name not in known)
    return f"loss {line['loss']:.3f} ({parts})  norm {line['norm']:.2f}  {line['tokens_per_second']:.0f} tokens/s"


def clock(seconds: float) -> str:
    """3723 -> 1:02:03."""
    whole = math.ceil(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def drop_after(path: Path, step: int) -> None:
    """Leave only the lines up to `step`, torn and damaged ones dropped as well. Written aside, then renamed."""
    if not path.exists():
        return
    kept = [raw for raw in path.read_bytes().splitlines(keepends=True) if _is_kept(raw, step)]
    aside = path.with_suffix(".partial")
    aside.write_bytes(b"".join(kept))
    aside.replace(path)


def _is_kept(raw: bytes, step: int) -> bool:
    try:
        return raw.endswith(b"\n") and json.loads(raw)["step"] <= step
    except (ValueError, TypeError, KeyError):  # what a crash of the machine left
        return False


def _board(folder: Path, start: int) -> Any:
    """A TensorBoard writer; None where it is not installed or its import fails, which is no reason not to train."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torch.utils.tensorboard import SummaryWriter
    except Exception as error:  # a broken installation fails in any way
        print(f"trimode: no TensorBoard ({error})", file=sys.stderr)
        return None
    return SummaryWriter(str(folder), purge_step=start + 1)
