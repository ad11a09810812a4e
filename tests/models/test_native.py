"""The native forward: the numbers of the torch path, and rows that know nothing of one another, to the last bit."""

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.fakes import tiny_model
from tests.native.models import BUILDS, DTYPES, SHAPES, commits, forward, native, reference, threads
from tests.strategies import spans
from trimode.errors import InvalidInput
from trimode.models.native import NativeTransformer, reason_against
from trimode.numerics.packed import packed
from trimode.numerics.visibility import serving
from trimode.spans import Canvas, Span

pytestmark = pytest.mark.medium

every_shape = pytest.mark.parametrize("shape", SHAPES)
every_build = pytest.mark.parametrize("flags", BUILDS, ids=["here", "avx2"])
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "bfloat16"])
SMALLEST = min(model["vocab_size"] for model in SHAPES.values() if "vocab_size" in model)


def within(span: Span, vocab_size: int) -> Span:
    """The same span with ids of a smaller vocabulary, and one row at least."""
    canvases = tuple(replace(c, tokens=tuple(t % vocab_size for t in c.tokens)) for c in span.canvases)
    commit = tuple(token % vocab_size for token in span.commit) or (() if canvases else (5,))
    return replace(span, commit=commit, canvases=canvases)


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    """Everywhere within `tolerance` of the largest number."""
    assert (ours - theirs.float()).abs().max() <= tolerance * theirs.float().abs().max().clamp_min(1)


def step(models: tuple[Any, ...], wanted: list[Span], caches: list[list[Any]], keeps: list[int]) -> list[Tensor]:
    """One forward per model, whose caches then keep the first commits."""
    rows = [torch.cat(forward(model, wanted, own)) for model, own in zip(models, caches, strict=True)]
    for own in caches:
        for cache, span, keep in zip(own, wanted, keeps, strict=True):
            cache.keep(cache.length + min(keep, len(span.commit)))
    return rows


@every_shape
@every_build
@settings(max_examples=8)
@given(data=st.data())
def test_hidden_rows_and_logits_are_those_of_torch(shape: str, flags: str, data: st.DataObject) -> None:
    models = reference(shape), native(shape, flags=flags)
    n = data.draw(st.integers(1, 3))
    caches = [[model.new_cache(1) for _ in range(n)] for model in models]
    for _ in range(data.draw(st.integers(1, 4))):
        wanted = [within(data.draw(spans()), models[0].config.vocab_size) for _ in range(n)]
        theirs, ours = step(models, wanted, caches, [data.draw(st.integers(0, 5)) for _ in range(n)])
        assert_close(ours, theirs, 1e-4)
        assert_close(models[1].logits(ours), models[0].logits(ours), 1e-5)


@every_shape
def test_a_long_text_in_one_forward_is_that_of_torch(shape: str) -> None:
    text = random.Random(4).choices(range(4, SMALLEST), k=150)
    ours, theirs = (forward(m, [commits(text)], [m.new_cache(1)])[0] for m in (native(shape), reference(shape)))
    assert_close(ours, theirs, 1e-4)


@every_shape
def test_bfloat16_stays_as_near_to_float32_as_torch_does(shape: str) -> None:
    """Both round; neither may be far from the numbers of the same weights in float32."""
    text = random.Random(5).choices(range(4, SMALLEST), k=40)
    rounded = reference(shape, torch.bfloat16)
    models = native(shape, torch.bfloat16), rounded
    exact = reference(shape).__class__(rounded.config)
    exact.load_state_dict(rounded.state_dict())
    exact.requires_grad_(False)
    ours, theirs, truth = (forward(m, [commits(text)], [m.new_cache(1)])[0].float() for m in (*models, exact))
    assert (ours - truth).pow(2).mean().sqrt() <= 1.2 * (theirs - truth).pow(2).mean().sqrt() + 1e-3


TEXT = random.Random(6).choices(range(4, SMALLEST), k=45)


def alone(model: Any) -> Tensor:
    """The hidden rows of TEXT, each from a forward of its own."""
    cache, rows = model.new_cache(64), []
    for token in TEXT:
        rows.append(forward(model, [commits([token])], [cache])[0])
        cache.keep(cache.length + 1)
    return torch.cat(rows)


@every_shape
@every_dtype
@every_build
@settings(max_examples=4)
@given(seed=st.integers(0, 10**6))
def test_a_commit_row_has_the_same_bits_whatever_shares_its_forward(
    shape: str, dtype: torch.dtype, flags: str, seed: int
) -> None:
    model, order = native(shape, dtype, flags), random.Random(seed)
    expected = alone(model)
    caches = [model.new_cache(order.randint(1, 60)) for _ in range(3)]
    at = 0
    while at < len(TEXT):
        width = order.choice((1, 2, 3, 5, 8, 11, 17))
        part = TEXT[at : at + width]
        canvases = [
            Canvas(
                after=order.randint(0, len(part)),
                tokens=tuple(order.choices(range(SMALLEST), k=order.randint(1, 9))),
                draft=order.random() < 0.6,
            )
            for _ in range(order.randint(0, 3))
        ]
        others = [commits(order.choices(range(4, SMALLEST), k=order.randint(1, 12))) for _ in caches[1:]]
        wanted = [*others, commits(part, canvases)]
        with threads(order.choice((1, 1, 2, 3))):
            rows = forward(model, wanted, caches)
        for cache, span in zip(caches, wanted, strict=True):
            cache.keep(cache.length + len(span.commit))
        assert torch.equal(rows[-1][: len(part)], expected[at : at + len(part)])
        at += width


@every_dtype
@every_build
def test_the_rows_of_a_canvas_have_the_same_bits_beside_other_requests(dtype: torch.dtype, flags: str) -> None:
    model = native("head 16, pairs", dtype, flags)
    canvas = Canvas(after=3, tokens=(3,) * 11, read=tuple(range(11)))
    other = commits(TEXT, [Canvas(after=9, tokens=(3,) * 5, draft=True)])

    def rows(*beside: Span) -> Tensor:
        spans = [*beside, commits([5, 6, 7], [canvas])]
        return forward(model, spans, [model.new_cache(1) for _ in spans])[-1]

    assert torch.equal(rows(), rows(other))
    assert torch.equal(rows(), rows(other, commits([9])))


@every_dtype
def test_drafts_are_near_what_they_would_be_as_canvas_rows(dtype: torch.dtype) -> None:
    model = native("head 64, fours, yarn", dtype)
    draft = Canvas(after=2, tokens=(3,) * 9, draft=True)
    spans = [commits([5, 6, 7], [c]) for c in (draft, replace(draft, draft=False))]
    quick, exact = (forward(model, [span], [model.new_cache(1)])[0] for span in spans)
    assert torch.equal(quick[:3], exact[:3])
    assert torch.nn.functional.cosine_similarity(quick[3:], exact[3:]).min() > 0.95


def test_drafts_in_the_midst_of_other_rows_come_back_in_their_places() -> None:
    model = native("head 16, pairs")
    canvases = [Canvas(after=1, tokens=(3,) * 4, draft=True), Canvas(after=2, tokens=(3,) * 3)]
    plain = [replace(canvas, draft=False) for canvas in canvases]
    mixed, exact = (forward(model, [commits([5, 6], each)], [model.new_cache(1)])[0] for each in (canvases, plain))
    assert torch.equal(mixed[[0, 1, 6, 7, 8]], exact[[0, 1, 6, 7, 8]])
    assert_close(mixed, exact, 0.2)


@every_dtype
@pytest.mark.parametrize("kept", [0, 1, 15, 16, 17, 33])
def test_a_cache_that_grew_and_was_cut_continues_as_a_new_one_would(dtype: torch.dtype, kept: int) -> None:
    model = native("head 32, alone, tied", dtype)
    used = model.new_cache(1)
    for start in range(0, 40, 8):
        forward(model, [commits(TEXT[start : start + 8], [Canvas(after=2, tokens=(3,) * 5)])], [used])
        used.keep(used.length + 8)
    used.keep(kept)
    fresh = model.new_cache(100)
    forward(model, [commits(TEXT[:kept] or [4])], [fresh])
    fresh.keep(kept)
    after = [9, 8, 7, 6, 5]
    assert torch.equal(*(forward(model, [commits(after)], [cache])[0] for cache in (used, fresh)))


def test_numbers_that_are_none_neither_hang_nor_reach_other_requests() -> None:
    model = native("head 16, pairs")
    other, expected = (model.new_cache(1) for _ in range(2))
    broken = model.new_cache(64)
    broken.pool.k[:] = broken.pool.v[:] = float("nan")
    broken.keep(30)
    rows = forward(model, [commits([5, 6]), commits([7, 8])], [broken, other])
    assert torch.equal(rows[1], forward(model, [commits([7, 8])], [expected])[0])
    assert rows[0].isnan().any()
    assert model.greedy(model.logits(rows[0])).token_S.shape == (2,)


@pytest.mark.parametrize(("token", "position", "past"), [(61, 0, 0), (-1, 0, 0), (5, -1, 0), (5, 0, 99)])
def test_a_row_that_points_outside_is_refused_before_anything_is_written(token: int, position: int, past: int) -> None:
    model = native("head 16, pairs")
    cache = model.new_cache(16)
    visibility = serving([commits([5])], [past])
    with pytest.raises(ValueError, match="row 0"):
        model(torch.tensor([token]), torch.tensor([position]), visibility, [cache])
    assert not cache.pool.k.any() and not cache.pool.v.any()


@every_shape
def test_rotations_of_a_position_do_not_depend_on_how_many_there_are(shape: str) -> None:
    model = native(shape)
    for short, long in zip(model._tables(37), model._tables(4100), strict=True):
        assert (short == long[:37]).all()


def test_logits_take_any_layout_of_rows() -> None:
    model = native("head 16, pairs")
    hidden_SD = torch.randn(48, 6).T
    assert torch.equal(model.logits(hidden_SD), model.logits(hidden_SD.contiguous()))
    assert torch.equal(model.logits(hidden_SD[2:3])[0], model.logits(hidden_SD)[2])


def test_training_is_refused() -> None:
    model = native("head 16, pairs")
    with pytest.raises(TypeError, match="training"):
        model(torch.tensor([5]), torch.tensor([0]), packed([[commits([5])]], 1))


def test_what_it_cannot_do_is_said_in_a_sentence() -> None:
    assert "head_dim" in str(reason_against(tiny_model()))
    assert "float16" in str(reason_against(reference("head 16, pairs", torch.float16)))
    with pytest.raises(InvalidInput, match="multiple of 16, the model has 8"):
        NativeTransformer(tiny_model())
