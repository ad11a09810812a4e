"""Random values for hypothesis, shared by the tests that need them."""

from hypothesis import strategies as st

from trimode.spans import KINDS, Canvas, Span

TOKENS = st.integers(0, 60)


@st.composite
def spans(draw: st.DrawFn) -> Span:
    """Any span: commits or none, canvases of any width after any of them, some rows wanted."""
    commit = tuple(draw(st.lists(TOKENS, max_size=5)))
    canvases = []
    for _ in range(draw(st.integers(0, 3))):
        tokens = tuple(draw(st.lists(TOKENS, min_size=1, max_size=4)))
        read = tuple(slot for slot in range(len(tokens)) if draw(st.booleans()))
        canvases.append(Canvas(after=draw(st.integers(0, len(commit))), tokens=tokens, read=read))
    read = tuple(i for i in range(len(commit)) if draw(st.booleans()))
    return Span(commit=commit, canvases=tuple(canvases), read=read, kind=draw(st.sampled_from(KINDS)))
