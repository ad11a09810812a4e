"""`trimode generate`: continue one prompt, as text while it comes or as one JSON object."""

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trimode.cli import flags
from trimode.errors import InvalidInput

if TYPE_CHECKING:
    from trimode.api import LLM, Completion, Stream

Prompt = Annotated[str | None, typer.Argument(help="The text to continue, or - to read it from standard input.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object with text, ids, counts and time.")]
Input = Annotated[Path | None, typer.Option("--input", help="JSONL with a prompt or messages per line.")]
Output = Annotated[Path | None, typer.Option("--output", help="JSONL to write; a run cut off goes on where it was.")]
Watch = Annotated[bool, typer.Option("--watch", help="Show the open canvas while it is denoised (in a terminal).")]


@flags.with_options
def generate(
    prompt: Prompt = None,
    model: flags.Model = None, mode: flags.Mode = None, max_tokens: flags.MaxTokens = 256,
    stop: flags.Stop = None, dtype: flags.Dtype = None, device: flags.Device = None, backend: flags.Backend = "auto",
    adapter: flags.Adapter = None, drafter: flags.Drafter = None, watch: Watch = False, as_json: AsJson = False,
    source: Input = None, target: Output = None, **chosen: Any,
) -> None:  # fmt: skip
    """Continue a prompt, or every line of a JSONL file."""
    from trimode.api import load

    options = flags.chosen(mode, max_tokens=max_tokens, stop=stop, **chosen)
    check_source(prompt, source, target)
    text = read_stdin() if prompt == "-" else prompt
    llm = load(model, dtype=dtype, device=device, backend=backend)
    options |= flags.load_adapters(llm, adapter, drafter)
    if text is None:
        run_batch(llm, source, target, options)
        return
    watched = watch and not as_json and sys.stdout.isatty()
    stream = llm.stream(text, watch=watched, **options)
    try:
        show(stream, watched, silent=as_json)
    except KeyboardInterrupt:
        stream.close()
    done = stream.completion
    if as_json:
        print(json.dumps(done.to_dict(), ensure_ascii=False))
    else:
        print(summary(done), file=sys.stderr)
    if done.finish_reason == "cancelled":
        raise typer.Exit(130)


def check_source(prompt: str | None, source: Path | None, target: Path | None) -> None:
    """Either a prompt, or an input and an output."""
    if (source is None) != (target is None) or (prompt is None) == (source is None):
        raise InvalidInput("give either a PROMPT (or -), or both --input and --output")


def run_batch(llm: "LLM", source: Path | None, target: Path | None, options: dict[str, Any]) -> None:
    """Answer a file and say how it went; an interrupt keeps every row that is done."""
    from trimode.cli import batch

    assert source is not None
    assert target is not None
    try:
        report = batch.run(llm, source, target, options)
    except KeyboardInterrupt:
        print(f"trimode: interrupted; {target} keeps the rows done, the same command goes on", file=sys.stderr)
        raise typer.Exit(130) from None
    print(f"{report.written} answered, {report.failed} bad lines, {report.kept} kept from before", file=sys.stderr)


def show(stream: "Stream", watched: bool, silent: bool) -> None:
    """Print text as it becomes final."""
    if watched:
        from trimode.cli.watch import watch as watch_canvas

        watch_canvas(stream)
        return
    for event in stream:
        if not silent:
            print(event.text, end="", flush=True)
    if not silent:
        print()


def summary(done: "Completion") -> str:
    """One line of counts."""
    kinds = ", ".join(f"{n} {kind}" for kind, n in done.forwards.items() if kind != "total")
    rate = done.completion_tokens / done.seconds if done.seconds else 0.0
    return (
        f"{done.mode}: {done.completion_tokens} tokens in {done.forwards['total']} forwards ({kinds}), "
        f"{done.tokens_per_forward:.2f} per forward, {rate:.0f} tokens/s, {done.finish_reason}"
    )


def read_stdin() -> str:
    """Standard input as UTF-8 text."""
    with suppress(UnicodeDecodeError):
        return sys.stdin.buffer.read().decode("utf-8")
    raise InvalidInput("standard input is not UTF-8 text")
