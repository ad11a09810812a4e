"""`trimode chat`: a conversation in the terminal, answers as they come."""

import sys
from typing import Any

from trimode.cli import flags
from trimode.cli.generate import summary
from trimode.errors import InvalidInput


@flags.with_options
def chat(
    model: flags.Model = None, mode: flags.Mode = None, max_tokens: flags.MaxTokens = 256,
    dtype: flags.Dtype = None, device: flags.Device = None, backend: flags.Backend = "auto",
    adapter: flags.Adapter = None, drafter: flags.Drafter = None, **chosen: Any,
) -> None:  # fmt: skip
    """Talk with the model. End with Ctrl-D; Ctrl-C stops an answer; an empty line is ignored."""
    from trimode.api import load

    options = flags.chosen(mode, max_tokens=max_tokens, **chosen)
    llm = load(model, dtype=dtype, device=device, backend=backend)
    options |= flags.load_adapters(llm, adapter, drafter)
    messages: list[dict[str, str]] = []
    while (text := ask()) is not None:
        if not text.strip():
            continue
        turns = [*messages, {"role": "user", "content": text}]
        try:
            stream = llm.stream(llm.chat_prompt(turns), **options)
        except InvalidInput as error:  # the conversation so far stays
            print(f"trimode: {error}", file=sys.stderr)
            if not messages:
                raise
            continue
        try:
            for event in stream:
                print(event.text, end="", flush=True)
        except KeyboardInterrupt:
            stream.close()
        print()
        print(summary(stream.completion), file=sys.stderr)
        messages = [*turns, {"role": "assistant", "content": stream.completion.text}]


def ask() -> str | None:
    """The next line of the user, None at the end of input."""
    try:
        return input("> " if sys.stdin.isatty() else "")
    except (EOFError, KeyboardInterrupt):
        return None
