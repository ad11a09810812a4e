"""The open canvas in a terminal: final text plain, filled slots of the canvas coloured, masks as dots."""

from rich.console import Console
from rich.live import Live
from rich.text import Text

from trimode.api import Stream
from trimode.engine.events import View

MASK = "·"


def watch(stream: Stream) -> None:
    """Redraw after every forward until the text is done; an interrupt leaves the text so far."""
    console = Console()
    final = ""
    with Live(console=console, refresh_per_second=30, vertical_overflow="visible") as live:
        for event in stream:
            final += event.text
            live.update(Text(final) + drawn(event.view))


def drawn(view: View | None) -> Text:
    """The canvas as text."""
    out = Text()
    for slot in view.canvas if view else ():
        if slot.token is None:
            out.append(MASK, style="dim")
        else:
            out.append(slot.text, style="bold green")
    return out
