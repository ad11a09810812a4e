"""`trimode demo` (what `make run` calls): a few real prompts in every mode, and one table of what each cost."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from trimode.cli import flags
from trimode.decoding import OWN_MODES
from trimode.spans import KINDS

if TYPE_CHECKING:
    from trimode.api import LLM, Completion

Prompt = Annotated[str | None, typer.Option(help="Your text instead of the bundled prompts.")]
OneMode = Annotated[str | None, typer.Option(help="Only this mode (and ar, to compare with).")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A mode's sums over the prompts."""

    mode: str
    tokens: int = 0
    characters: int = 0
    seconds: float = 0.0
    verified: float = 0.0  # tokens that verify forwards made
    forwards: dict[str, int]
    is_same: bool = True

    def plus(self, done: "Completion", reference: "Completion") -> "Row":
        kinds = {
            kind: self.forwards.get(kind, 0) + done.forwards.get(kind, 0) for kind in self.forwards | done.forwards
        }
        return replace(
            self,
            tokens=self.tokens + done.completion_tokens,
            characters=self.characters + len(done.text),
            seconds=self.seconds + done.seconds,
            verified=self.verified + (done.acceptance_length or 0.0) * done.forwards.get("verify", 0),
            forwards=kinds,
            is_same=self.is_same and done.token_ids == reference.token_ids,
        )


def demo(
    prompt: Prompt = None, mode: OneMode = None, model: flags.Model = None,
    max_tokens: flags.MaxTokens = 160, dtype: flags.Dtype = None,
) -> None:  # fmt: skip
    """Write a few texts in every mode and compare what they cost."""
    from trimode.api import BUNDLED, load

    console = Console(highlight=False)
    llm = load(model, dtype=dtype)
    prompts = [prompt] if prompt else json.loads((BUNDLED / "prompts.json").read_text("utf-8"))
    chosen = flags.canonical_mode(mode) if mode else None
    modes = list(OWN_MODES) if chosen is None else list(dict.fromkeys(("ar", chosen)))
    for name in modes:  # the first call of each shape pays for its kernels
        llm.generate(prompts[0], mode=name, max_tokens=40)
    rows = {name: Row(mode=name, forwards={}) for name in modes}
    for text in prompts:
        console.rule("prompt", align="left", style="dim")
        console.print(text.rstrip("\n"), style="dim", markup=False)
        reference: Completion | None = None
        for name in modes:
            console.rule(name, align="left")
            done = written(llm, text, console, mode=name, max_tokens=max_tokens)
            reference = reference or done
            rows[name] = rows[name].plus(done, reference)
    console.print(table([rows[name] for name in modes]))


def written(llm: "LLM", text: str, console: Console, **options: Any) -> "Completion":
    """One answer, printed as it is committed."""
    stream = llm.stream(text, **options)
    for event in stream:
        console.print(event.text, end="", markup=False, soft_wrap=True)
    console.print()
    return stream.completion


def table(rows: Sequence[Row]) -> Table:
    """One column per mode, so that it fits 80 characters."""
    out = Table(box=box.SIMPLE)
    out.add_column("mode")
    for row in rows:
        out.add_column(row.mode, justify="right")
    kinds = [kind for kind in KINDS if any(kind in row.forwards for row in rows)]
    lines: list[tuple[str, Callable[[Row], str]]] = [
        ("tokens", lambda r: str(r.tokens)),
        ("forwards", lambda r: str(r.forwards["total"])),
        *((f"  {kind}", lambda r, kind=kind: str(r.forwards.get(kind, "-"))) for kind in kinds),
        ("tokens per forward", lambda r: f"{r.tokens / r.forwards['total']:.2f}"),
        ("acceptance length", lambda r: f"{r.verified / r.forwards['verify']:.2f}" if "verify" in r.forwards else "-"),
        ("tokens/s", lambda r: f"{r.tokens / r.seconds:.0f}"),
        ("characters/s", lambda r: f"{r.characters / r.seconds:.0f}"),
        ("identical to ar", lambda r: "yes" if r.is_same else "no"),
    ]
    for title, cell in lines:
        out.add_row(title, *(cell(row) for row in rows))
    return out
