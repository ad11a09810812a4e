"""A report for people: the cells of its table, and report.md. Pure functions of the report."""

from collections.abc import Callable, Sequence

from trimode.evaluation.metrics import Bounds
from trimode.evaluation.report import AR, Evaluation, Line

BASELINE = "prompt_lookup"
PARTS = ("weights", "adapter", "drafter")
POSITIONS = 16  # of a draft, in the table by position
Cell = tuple[str, Callable[[Line, dict[str, Line]], str]]

COLUMNS: tuple[Cell, ...] = (
    ("mode", lambda row, others: row["setting"]),
    ("n", lambda row, others: str(row["n"]) + (f" ({row['refused']} refused)" if row["refused"] else "")),
    ("accuracy %", lambda row, others: _percent(row["accuracy"])),
    ("points to ar", lambda row, others: _points(row["difference_to_ar"])),
    ("tokens/forward", lambda row, others: _number(row["tokens_per_forward"])),
    ("acceptance length", lambda row, others: _number(row["acceptance_length"])),
    ("tokens/s", lambda row, others: _speed(row["tokens_per_second"])),
    ("x ar", lambda row, others: _times(row, others.get(AR))),
    (f"x {BASELINE}", lambda row, others: _times(row, others.get(BASELINE))),
    ("characters/s", lambda row, others: _speed(row["characters_per_second"])),
    ("same as ar %", lambda row, others: _percent(row["identical_to_ar"])),
)


def cells(report: Evaluation, task: str) -> list[list[str]]:
    """The rows of one task, in order of the columns."""
    here = {row["setting"]: row for row in report["rows"] if row["task"] == task}
    return [[cell(row, here) for _, cell in COLUMNS] for row in here.values()]


def tasks(report: Evaluation) -> list[str]:
    """The tasks and groups of a report, in order."""
    return list(dict.fromkeys(row["task"] for row in report["rows"]))


def markdown(report: Evaluation) -> str:
    """The whole report as Markdown, with what its numbers mean and where they come from."""
    parts = [f"# Evaluation of {report['checkpoint']}", about(report)]
    for task in tasks(report):
        parts += [f"## {task}", grid([title for title, _ in COLUMNS], cells(report, task))]
        if task in report["aup"]:
            parts.append(f"Area under accuracy and parallelism over the thresholds (AUP): {report['aup'][task]:.1f}.")
        parts += positions([row for row in report["rows"] if row["task"] == task])
    return "\n\n".join(part for part in [*parts, *likelihood(report), definitions(report)] if part) + "\n"


def about(report: Evaluation) -> str:
    """Checkpoint, software, machine and plan."""
    facts = report["about"]
    lines = [
        *(f"- {part}: SHA-256 {facts[key]}" for part in PARTS if facts.get(key := f"{part}_sha256")),
        f"- trimode {facts['version']}, {facts['dtype']}, backend {facts['backend']} on {facts['device']}, "
        f"{facts['threads']} threads",
        f"- machine: {facts['machine']}",
        f"- {facts['date']}, seed {facts['seed']}, limit {facts['limit']}, batch {facts['batch']}, "
        f"repeats {facts['repeats']}, chat {'yes' if facts['chat'] else 'no'}",
    ]
    return "\n".join(lines + ([f"- command: `{facts['command']}`"] if facts.get("command") else []))


def grid(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *body))


def positions(rows: Sequence[Line]) -> list[str]:
    """Acceptance by position, a row per mode that verifies: of all its drafts, and of those that came so far."""
    some = [row for row in rows if row["acceptance"]]
    if not some:
        return []
    width = min(max(len(row["acceptance"]) for row in some), POSITIONS)
    head = ["mode", *map(str, range(1, width + 1))]
    of_drafts = [[row["setting"], *_filled([p["of_drafts"] for p in row["acceptance"]], width)] for row in some]
    of_reached = [[row["setting"], *_filled([p["of_reached"] for p in row["acceptance"]], width)] for row in some]
    return [
        "Drafts whose guesses held up to each position, % of all drafts, shorter ones included:", grid(head, of_drafts),
        "Guesses that held at each position, % of those before which all held:", grid(head, of_reached),
    ]  # fmt: skip


def likelihood(report: Evaluation) -> list[str]:
    """Exact likelihood and bounds of the reference answers, nats per token."""
    if not report["likelihood"]:
        return []
    sizes = list(dict.fromkeys(bound["block_size"] for row in report["likelihood"] for bound in row["bounds"]))
    body = []
    for row in report["likelihood"]:
        bounds = {bound["block_size"]: bound for bound in row["bounds"]}
        cells = [_estimate(bounds[size]) if size in bounds else "-" for size in sizes]
        body.append([row["task"], str(row["n"]), _estimate(row["ar"]), *cells])
    head = ["task", "answers", "ar, exact", *(f"NELBO, blocks of {size}" for size in sizes)]
    draws = max((bound["draws"] for row in report["likelihood"] for bound in row["bounds"]), default=0)
    errors = f"; bounds from {draws} draws, ± standard error" if draws else ""
    said = f"Nats per token of the reference answers{errors}"
    refused = dict.fromkeys(why for row in report["likelihood"] for why in row["refused"])
    return ["## Likelihood", f"{said}.", grid(head, body), *refused]


def definitions(report: Evaluation) -> str:
    """What the columns mean."""
    batch = report["about"]["batch"]
    speed = "one request at a time" if batch == 1 else f"{batch} requests in one engine at once"
    has_baseline = any(row["setting"] == BASELINE for row in report["rows"])
    return "\n".join([
        "## What the numbers mean", "",
        "- accuracy: share of right answers, with its 95 % Wilson interval; points to ar: the difference on the same "
        "items, with its 95 % interval; a prompt the context cannot hold is refused and counts as wrong",
        "- tokens/forward: sum of tokens over sum of forwards, an ending EOS and the prefill counted; `ar` is 1",
        "- acceptance length: tokens made by verify forwards over verify forwards, the one behind the guesses included",
        f"- tokens/s and characters/s: {speed}, the modes in turn on every item, median of "
        f"{report['about']['repeats']} repeats; characters compare tokenizers",
        f"- x {BASELINE}: beside prompt lookup with the same model" + ("" if has_baseline else " (not run here)"),
        "- same as ar: share of answers equal to those of `ar`, token for token",
    ])  # fmt: skip


def _percent(share: Bounds | None) -> str:
    return "-" if share is None else f"{100 * share['value']:.1f} [{100 * share['low']:.1f}, {100 * share['high']:.1f}]"


def _points(difference: Bounds | None) -> str:
    if difference is None:
        return "-"
    value, low, high = (100 * difference[name] for name in ("value", "low", "high"))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def _filled(shares: Sequence[float | None], width: int) -> list[str]:
    """Cells of a row, in percent, the last of them empty."""
    cells = ["-" if share is None else f"{100 * share:.0f}" for share in shares[:width]]
    return cells + [""] * (width - len(cells))


def _number(bounds: Bounds | None) -> str:
    return "-" if bounds is None else f"{bounds['value']:.2f}"


def _speed(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.0f}"


def _times(row: Line, other: Line | None) -> str:
    if other is None or not row["tokens_per_second"] or not other["tokens_per_second"]:
        return "-"
    return f"{row['tokens_per_second'] / other['tokens_per_second']:.2f}"


def _estimate(bound: dict[str, float | None] | None) -> str:
    if bound is None:
        return "-"
    error = bound["standard_error"] or None  # of an exact value there is none
    return f"{bound['per_token']:.4f}" + ("" if error is None else f" ± {error:.4f}")
