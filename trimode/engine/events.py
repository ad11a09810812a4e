"""What the engine tells whoever listens: one event per request and forward that changed something."""

from dataclasses import dataclass

from trimode.spans import CanvasView, FinishReason, Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """New final tokens and the text that became certain; `canvas` only for a request somebody watches."""

    request: int
    kind: Kind | None  # of the forward; None for an abort
    tokens: tuple[int, ...]
    text: str
    finish: FinishReason | None = None
    canvas: CanvasView | None = None
