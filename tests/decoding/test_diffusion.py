"""Diffusion's forwards follow closed formulas, its options mean what they say, and blocks of one are ar."""

from collections import Counter
from itertools import product

import pytest

from tests.fakes import MASK, ScriptedModel, drain, lively_model
from trimode.decoding import build
from trimode.engine.engine import Engine
from trimode.engine.request import Request
from trimode.numerics.sampling import Sampling
from trimode.spans import Span

TRUE = 7
ANCHORS = ("fused", "canvas", "none")
SIZES = list(product((1, 2, 5, 8), (1, 2, 7, 20)))  # blocks and answers, mostly no multiples of them


def run(model: ScriptedModel, max_tokens: int, **options: object) -> Request:
    engine = Engine(model)
    request = engine.submit([5, 6], build("diffusion", model.config, **options), max_tokens=max_tokens)
    drain(engine)
    assert request.answer == (TRUE,) * max_tokens
    return request


def sayer(sure: float) -> ScriptedModel:
    return ScriptedModel(lambda p: TRUE, lambda p: TRUE, lambda p: sure)


def widths(max_tokens: int, block_size: int) -> list[int]:
    """Blocks of an answer, the last one as long as it needs to be."""
    full, tail = divmod(max_tokens, block_size)
    return [block_size] * full + [tail] * bool(tail)


def n_to_look_for(anchor: str, width: int) -> int:
    """Looks at a block when each fills one slot; a fused first look fills its anchor, which alone needs no look."""
    return {"fused": width if width > 1 else 0, "canvas": width - 1, "none": width}[anchor]


def expected(anchor: str, blocks: list[int], looks: list[int]) -> Counter[str]:
    """Forwards when block b takes looks[b]: the first look of a block rides, except after an anchor on the canvas."""
    riding = [anchor == "none" or (anchor == "fused" and width > 1) for width in blocks]
    denoise = sum(n - rides for n, rides in zip(looks, riding, strict=True))
    return +Counter(prefill=1, commit=len(blocks) - 1, denoise=denoise)


@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("sure", [0.3, 0.95])
def test_a_threshold_above_one_fills_one_slot_per_look(anchor: str, sure: float) -> None:
    for block_size, n in SIZES:
        request = run(sayer(sure), n, anchor=anchor, block_size=block_size, confidence_threshold=1.5)
        blocks = widths(n, block_size)
        assert request.counts.forwards == expected(anchor, blocks, [n_to_look_for(anchor, w) for w in blocks])


@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize(("threshold", "sure"), [(0.0, 0.3), (0.9, 0.95)])
def test_sure_slots_are_filled_in_one_look(anchor: str, threshold: float, sure: float) -> None:
    for block_size, n in SIZES:
        request = run(sayer(sure), n, anchor=anchor, block_size=block_size, confidence_threshold=threshold)
        blocks = widths(n, block_size)
        assert request.counts.forwards == expected(anchor, blocks, [min(n_to_look_for(anchor, w), 1) for w in blocks])


@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("steps", [1, 2, 3, 8, 30])
@pytest.mark.parametrize("threshold", [None, 0.9])
def test_no_block_takes_more_looks_than_allowed(anchor: str, steps: int, threshold: float | None) -> None:
    """A hopeless drafter, never sure: the last look allowed fills the rest."""
    for block_size, n in SIZES:
        options = dict(block_size=block_size, max_denoising_steps=steps, confidence_threshold=threshold)
        request = run(sayer(0.3), n, anchor=anchor, **options)
        blocks = widths(n, block_size)
        looks = [min(n_to_look_for(anchor, w), steps) for w in blocks]
        assert request.counts.forwards == expected(anchor, blocks, looks)


@pytest.mark.parametrize("temperature", [0.0, 2.0])
@pytest.mark.parametrize("anchor", ["fused", "canvas"])
def test_anchored_blocks_of_one_are_ar(anchor: str, temperature: float) -> None:
    model = lively_model(1)
    sampling = Sampling(temperature=temperature, seed=5)
    engine = Engine(model)
    for prompt in ([5], [9, 8, 30, 4]):
        blocks = engine.submit(
            prompt, build("diffusion", model.config, block_size=1, anchor=anchor), max_tokens=20, sampling=sampling
        )
        plain = engine.submit(prompt, build("ar", model.config), max_tokens=20, sampling=sampling)
        drain(engine)
        assert blocks.answer == plain.answer
        assert blocks.counts.forwards.total() == plain.counts.forwards.total()


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("anchor", ANCHORS)
def test_an_even_quota_spreads_the_slots_over_the_looks(anchor: str, steps: int) -> None:
    """Masks left after every look at a block of 8 decrease by 8 / steps, the earlier looks taking the remainder."""
    model = sayer(0.3)
    engine = Engine(model)
    decoder = build(
        "diffusion", model.config, block_size=8, anchor=anchor, confidence_threshold=None, max_denoising_steps=steps
    )
    engine.submit([5, 6], decoder, max_tokens=8, watch=True)
    left = []
    while not engine.is_idle:
        for event in engine.step():
            assert event.view
            left.append(sum(slot.state == "masked" for slot in event.view.canvas))
    if anchor == "canvas":
        left = left[1:]  # the anchor's forward is no look
    n = 7 if anchor == "canvas" else 8
    shares = [n // steps + (look < n % steps) for look in range(steps)]
    assert left == [n - sum(shares[: look + 1]) for look in range(len([s for s in shares if s]))]


@pytest.mark.parametrize("anchor", ANCHORS)
def test_filled_slots_are_never_revised(anchor: str) -> None:
    model = lively_model(3)
    engine = Engine(model)
    decoder = build("diffusion", model.config, block_size=8, anchor=anchor, confidence_threshold=0.5)
    request = engine.submit([5, 6, 30], decoder, max_tokens=40, watch=True)
    before: tuple[int, ...] = ()
    n_looks = 0
    while not engine.is_idle:
        (event,) = engine.step()
        assert event.view
        canvas = tuple(MASK if slot.token is None else slot.token for slot in event.view.canvas)
        now = canvas or event.tokens
        assert all(old in (MASK, new) for old, new in zip(before, now, strict=False))
        n_looks += bool(before)
        before = canvas
    assert n_looks > 5
    assert MASK not in request.answer


@pytest.mark.parametrize("anchor", ANCHORS)
def test_an_eos_waits_for_the_slots_before_it_and_ends_the_text_there(anchor: str) -> None:
    """Slot 5 of 8 is surely EOS, the others unsure: the slots before it are filled, those after it dropped."""
    eos = 2
    model = ScriptedModel(
        lambda p: TRUE, lambda p: eos if p == 2 + 5 else TRUE, lambda p: 0.95 if p == 2 + 5 else 0.3 - 0.01 * p
    )
    engine = Engine(model)
    request = engine.submit([5, 6], build("diffusion", model.config, block_size=8, anchor=anchor), max_tokens=30)
    drain(engine)
    assert request.answer == (TRUE,) * 5 + (eos,)
    assert request.finish == "stop"
    riding = anchor != "canvas"
    n_looks = 1 + 4 + (anchor == "none")  # the EOS, then one by one what stands before it, the anchor excepted
    assert request.counts.forwards == +Counter(prefill=1, denoise=n_looks - riding)


@pytest.mark.parametrize("anchor", ANCHORS)
def test_a_canvas_is_never_cut_by_the_budget_of_rows(anchor: str) -> None:
    decoder = build("diffusion", lively_model().config, block_size=8, anchor=anchor)
    tokens = list(range(4, 14))
    state = decoder.start(tokens, 100)
    spans: list[Span] = []
    cache_len = 0
    while not (spans and spans[-1].n_read):
        spans.append(decoder.plan(state, tokens, cache_len, 4))
        cache_len += len(spans[-1].commit)
    assert cache_len == len(tokens)
    assert all(span.n_rows <= 4 for span in spans[:-1])
    assert [len(canvas.tokens) for canvas in spans[-1].canvases] == ([] if anchor == "canvas" else [8])
