"""`trimode eval CHECKPOINT`: tasks in every mode, what the answers are worth and what they cost; kept and resumable."""

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trimode.cli import flags
from trimode.errors import InvalidInput

if TYPE_CHECKING:
    from trimode.evaluation.plan import Plan
    from trimode.evaluation.report import Evaluation

WIDTH = 240  # of the table where there is no terminal: room for every name

Checkpoint = Annotated[str | None, typer.Argument(help="Checkpoint folder or Hub id (default: the bundled model).")]
Tasks = Annotated[
    list[str],
    typer.Option(help="Tasks and groups with commas between: procedural, wide, json, json:wide, gsm8k, humaneval, ..."),
]
Modes = Annotated[
    list[str] | None,
    typer.Option(help="Modes with options: ar,diffusion:confidence_threshold=0.8 (default: all the checkpoint has)."),
]
Limit = Annotated[int, typer.Option(min=0, help="Items per task; 0: all of a published set.")]
Seed = Annotated[int, typer.Option(help="Of the items; training uses 0.")]
Batch = Annotated[int, typer.Option(help="Requests in one engine at once; speeds are then those of the batch.")]
Repeats = Annotated[int, typer.Option(help="Time every answer so often, and give medians.")]
MaxTokens = Annotated[int | None, typer.Option(help="Tokens of an answer at most (default: what its task asks for).")]
DataDir = Annotated[Path | None, typer.Option(help="Folder with the files of published sets.")]
Out = Annotated[Path, typer.Option(help="Folder of report and generations; the same command goes on in it.")]
Adapter = Annotated[str | None, typer.Option(help="Folder of an adapter in peft's format, on in every answer.")]
Chat = Annotated[bool, typer.Option("--chat", help="Ask as turns of a conversation.")]
Sweep = Annotated[bool, typer.Option("--threshold-sweep", help="Run diffusion at thresholds from 0.5 to 0.99 too.")]
NoLikelihood = Annotated[bool, typer.Option("--no-likelihood", help="Leave out NLL and NELBO of the right answers.")]
BlockSizes = Annotated[
    str | None, typer.Option("--nelbo-blocks", help="Block sizes of the NELBO, 4,8,16 (default: the checkpoint's).")
]
Draws = Annotated[int, typer.Option(help="Masks drawn per right answer for its NELBO.")]
Plots = Annotated[bool, typer.Option("--plots", help="Draw PNGs as well (needs trimode[train]).")]
Unsandboxed = Annotated[
    bool, typer.Option("--allow-unsandboxed", help="Run written code though this system has no sandbox for it.")
]


def evaluate(
    model: Checkpoint = None, tasks: Tasks = ["procedural"], modes: Modes = None, limit: Limit = 50, seed: Seed = 1000,  # noqa: B006
    batch: Batch = 1, repeats: Repeats = 1, max_tokens: MaxTokens = None, data_dir: DataDir = None,
    out: Out = Path("evaluation"), dtype: flags.Dtype = None, device: flags.Device = None,
    backend: flags.Backend = "auto", adapter: Adapter = None, drafter: flags.Drafter = None, chat: Chat = False,
    threshold_sweep: Sweep = False, no_likelihood: NoLikelihood = False, block_sizes: BlockSizes = None,
    draws: Draws = 4, plots: Plots = False, allow_unsandboxed: Unsandboxed = False,
) -> None:  # fmt: skip
    """Measure every mode of a checkpoint: accuracy, tokens per forward, acceptance, speed, likelihood."""
    from trimode.api import load
    from trimode.evaluation.plan import Plan, split_names

    plan = Plan(
        tasks=split_names(tasks), modes=canonical(modes or []), limit=limit or None, seed=seed, batch=batch,
        repeats=repeats, max_tokens=max_tokens, data_dir=data_dir, chat=chat, threshold_sweep=threshold_sweep,
        likelihood=not no_likelihood, block_sizes=whole_numbers(block_sizes), draws=draws, plots=plots,
        allow_unsandboxed=allow_unsandboxed,
    )  # fmt: skip
    llm = load(model, dtype=dtype, device=device, backend=backend)
    chosen = flags.load_adapters(llm, [adapter] if adapter else None, drafter)
    show(run(llm, replace(plan, adapter=chosen.get("adapter")), out))


def run(llm: Any, plan: "Plan", out: Path) -> "Evaluation":
    """Evaluate, telling how far it is; an interrupt keeps every answer that is there."""
    from trimode.evaluation import runner

    try:
        with Bar() as bar:
            return runner.evaluate(llm, plan, out, tell=bar, command=shlex.join(["trimode", *sys.argv[1:]]))
    except KeyboardInterrupt:
        print(f"trimode: interrupted; {out} keeps the answers so far, the same command goes on", file=sys.stderr)
        raise typer.Exit(130) from None


def canonical(modes: list[str]) -> tuple[str, ...]:
    """The modes of all flags, each with our word for it."""
    from trimode.evaluation.plan import split_modes

    parted = (spec.partition(":") for text in modes for spec in split_modes(text))
    return tuple(flags.canonical_mode(name) + colon + rest for name, colon, rest in parted)


def whole_numbers(text: str | None) -> tuple[int, ...]:
    """`4,8` -> (4, 8)."""
    try:
        return tuple(int(part) for part in (text or "").split(",") if part.strip())
    except ValueError:
        raise InvalidInput(f"--nelbo-blocks is {text!r}, allowed are whole numbers with commas between") from None


class Bar:
    """What a person hears meanwhile, on stderr: a bar in a terminal, else a line per task."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.console, self.task = Console(stderr=True, highlight=False), ""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self.id = self.bar.add_task("", total=None)

    def __enter__(self) -> "Bar":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def note(self, sentence: str) -> None:
        """A line above the bar."""
        self.console.print(f"trimode: {sentence}", markup=False, soft_wrap=True)

    def advance(self, done: int, total: int, task: str) -> None:
        """So many of all answers are there."""
        self.bar.update(self.id, completed=done, total=total, description=task)
        if task != self.task and not self.console.is_terminal:
            self.note(f"{task}, {done} of {total} answers")
        self.task = task


def show(report: "Evaluation") -> None:
    """The table of a report on stdout, a part per task."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from trimode.evaluation.tables import COLUMNS, cells, tasks

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    table = Table(box=box.SIMPLE)
    for index, title in enumerate(("task", *(title for title, _ in COLUMNS))):
        table.add_column(title, justify="left" if index < 2 else "right")
    for task in tasks(report):
        for index, row in enumerate(cells(report, task)):
            table.add_row(task if index == 0 else "", *row)
        table.add_section()
    console.print(table)
