"""Training's three forms of the rule are one rule: who sees whom, pair by pair, and what attention makes of it."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from tests.fakes import MASK, tiny_model
from tests.strategies import spans
from trimode.errors import InvalidInput
from trimode.models.layers import attend_streams
from trimode.numerics import flex
from trimode.numerics import packed as forms
from trimode.numerics.packed import packed
from trimode.numerics.visibility import Stream, visible
from trimode.spans import Canvas, Span

pytestmark = pytest.mark.medium

CPU = torch.device("cpu")
PACKS = st.lists(st.lists(spans(), max_size=4), min_size=1, max_size=3)
CHUNKS = (1, 6, 256)


def masks(n: int, after: int) -> Canvas:
    return Canvas(after=after, tokens=(MASK,) * n)


def long_packs() -> list[list[Span]]:
    """Rows for several tiles: blocks noised twice, an infill canvas, a canvas before everything, a plain text, blocks
    that see both ways, many short documents, and nothing."""
    text = tuple(range(200))
    twice = tuple(masks(32, after) for _ in range(2) for after in range(8, 200, 32))
    short = [Span(commit=text[:9], canvases=(masks(4, 3), masks(4, 7)), kind="prefill")] * 12
    return [
        [Span(commit=text, canvases=(masks(5, 0), *twice, masks(70, 100)), kind="prefill")],
        [Span(commit=text + text[:90], kind="prefill"), *short],
        [Span(commit=text + text[:88], canvases=(masks(32, 32), masks(32, 256)), kind="prefill", block=32)],
        [],
    ]


def rows_for(packs: Sequence[Sequence[Span]], spare: int) -> int:
    return max(sum(span.n_rows for span in pack) for pack in packs) + spare


def expected(packs: Sequence[Sequence[Span]], rows: int) -> Tensor:
    """[T, T] over all packed rows: the rule within every pack, and every row of padding by itself."""
    blocks = []
    for pack in packs:
        matrix = visible(pack)
        blocks += [matrix.float(), torch.eye(rows - len(matrix))]
    return torch.block_diag(*blocks).bool()


def found(streams: Sequence[Stream]) -> Tensor:
    """[T, T]: what the streams show, which must be all rows in order."""
    total = streams[-1].stop
    out = torch.zeros(total, total, dtype=torch.bool)
    for before, stream in zip((None, *streams), streams, strict=False):
        assert stream.start == (before.stop if before else 0)
        assert stream.past == 0 or (stream.before is not None and stream.count == 1)
        for index in range(stream.count):
            first = stream.start + index * stream.rows
            own = range(first, first + stream.rows)
            past = range(stream.before, stream.before + stream.past) if stream.before is not None else range(0)
            out[first : first + stream.rows, [*past, *own]] = shown(stream, index)
    return out


def shown(stream: Stream, index: int) -> Tensor:
    """[rows, past + rows] of one stretch."""
    size, bias = (stream.rows, stream.past + stream.rows), stream.bias_NQK
    if isinstance(bias, BlockMask):
        q, k = torch.arange(size[0])[:, None], torch.arange(size[1])
        return bias.mask_mod(torch.tensor(index), torch.tensor(0), q, k)
    if bias is None:
        return torch.ones(size, dtype=torch.bool).tril() if stream.is_causal else torch.ones(size, dtype=torch.bool)
    assert not stream.is_causal
    assert bool(((bias == 0) | (bias == float("-inf"))).all())
    return bias[index, 0] == 0


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("attention", ["dense", "split", "flex"])
@settings(max_examples=40)
@given(packs=PACKS, spare=st.integers(0, 3))
def test_every_form_shows_the_rule_and_padding_only_itself(
    packs: list[list[Span]], spare: int, attention: forms.Attention, chunk: int
) -> None:
    rows = rows_for(packs, spare)
    if not rows:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forms, "CHUNK", chunk)
        streams = packed(packs, rows, attention).streams(torch.float32, CPU)
    assert torch.equal(found(streams), expected(packs, rows))


@pytest.mark.parametrize("chunk", [64, 256])
@pytest.mark.parametrize("attention", ["dense", "split", "flex"])
def test_long_packs_show_the_rule_too(attention: forms.Attention, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "CHUNK", chunk)
    packs = long_packs()
    rows = rows_for(packs, 7)
    assert torch.equal(found(packed(packs, rows, attention).streams(torch.float32, CPU)), expected(packs, rows))


def test_the_split_path_has_no_mask_for_text_and_small_ones_for_canvases() -> None:
    packs = long_packs()
    streams = packed(packs[:2], rows_for(packs, 0)).streams(torch.float32, CPU)
    shapes = [(s.rows, s.past, s.is_causal, None if s.bias_NQK is None else s.bias_NQK.shape[2:]) for s in streams]
    assert shapes == [
        (200, 0, True, None),
        (229, 168, False, (229, 397)),
        (230, 168, False, (230, 398)),
        (290, 0, True, None),
        (204, 0, False, (204, 204)),  # twelve documents of 17 rows
        (1, 0, False, None),  # padding, row by row
    ]


@settings(max_examples=20)
@given(packs=PACKS, spare=st.integers(0, 3))
def test_tiles_that_are_skipped_hold_nothing_and_full_ones_everything(packs: list[list[Span]], spare: int) -> None:
    if rows_for(packs, spare):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(flex, "TILE", 4)
            check_tiles(packs, rows_for(packs, spare))


def test_long_packs_have_the_tiles_of_pairwise_comparison() -> None:
    check_tiles(long_packs(), rows_for(long_packs(), 7))


def check_tiles(packs: list[list[Span]], rows: int) -> None:
    """Ours, computed from ranges, against torch's, computed from all pairs."""
    (stream,) = packed(packs, rows, "flex").streams(torch.float32, CPU)
    ours = stream.bias_NQK
    assert isinstance(ours, BlockMask)
    theirs = create_block_mask(ours.mask_mod, len(packs), None, rows, rows, device="cpu", BLOCK_SIZE=flex.TILE)
    assert ours.shape == theirs.shape
    assert torch.equal(ours.to_dense(), theirs.to_dense())
    for mine, other in zip(full_tiles(ours), full_tiles(theirs), strict=True):
        assert mine <= other  # a tile that two ranges fill together counts as partial


def full_tiles(mask: BlockMask) -> list[set[int]]:
    """Per tile of queries, which tiles of keys need no mask."""
    counts, indices = mask.full_kv_num_blocks, mask.full_kv_indices
    assert counts is not None
    assert indices is not None
    listed = zip(counts.flatten().tolist(), indices.flatten(0, -2).tolist(), strict=True)
    return [set(tiles[:n]) for n, tiles in listed]


def random_qkv(total: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Queries of 4 heads, keys and values of 2, [T, heads, 8]."""
    generator = torch.Generator().manual_seed(total)
    return [torch.randn(total, n, 8, generator=generator, dtype=dtype) for n in (4, 2, 2)]


def attended(packs: Sequence[Sequence[Span]], rows: int, attention: forms.Attention, chunk: int) -> list[Tensor]:
    """What attention makes of random queries, keys and values, and the gradient of each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forms, "CHUNK", chunk)
        streams = packed(packs, rows, attention).streams(torch.float32, CPU)
    qkv = [x.requires_grad_() for x in random_qkv(len(packs) * rows)]
    out = attend_streams(qkv[0], qkv[1], qkv[2], streams, None, 0)
    (out * torch.linspace(0, 1, out.numel()).view_as(out)).sum().backward()
    return [out.detach(), *(torch.zeros_like(x) if x.grad is None else x.grad for x in qkv)]


@pytest.mark.parametrize("chunk", CHUNKS)
@settings(max_examples=40)
@given(packs=PACKS, spare=st.integers(0, 3))
def test_split_attention_is_dense_attention_in_value_and_gradient(
    packs: list[list[Span]], spare: int, chunk: int
) -> None:
    if rows := rows_for(packs, spare):
        split, dense = (attended(packs, rows, form, chunk) for form in ("split", "dense"))
        torch.testing.assert_close(split, dense, rtol=1e-5, atol=1e-5)


def test_split_attention_is_dense_attention_for_long_packs() -> None:
    packs = long_packs()
    split, dense = (attended(packs, rows_for(packs, 7), form, 64) for form in ("split", "dense"))
    torch.testing.assert_close(split, dense, rtol=1e-5, atol=1e-5)


@pytest.mark.medium
def test_flex_attention_is_dense_attention() -> None:
    """Forward only: there is no more on a CPU."""
    packs = long_packs()
    rows = rows_for(packs, 7)
    q, k, v = random_qkv(len(packs) * rows)
    flexible, dense = (
        attend_streams(q, k, v, packed(packs, rows, form).streams(torch.float32, CPU), None, 0)
        for form in ("flex", "dense")
    )
    torch.testing.assert_close(flexible, dense, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="FlexAttention has a backward pass on CUDA only")
def test_on_cuda_flex_attention_is_split_attention_in_value_and_gradient() -> None:
    packs, device, found = long_packs(), torch.device("cuda"), []
    rows = rows_for(packs, 7)
    for form in ("auto", "split"):
        qkv = [torch.cat([x, x], -1).to(device).requires_grad_() for x in random_qkv(len(packs) * rows)]
        streams = packed(packs, rows, form).streams(torch.float32, device)
        assert isinstance(streams[0].bias_NQK, BlockMask) == (form == "auto")
        out = attend_streams(qkv[0], qkv[1], qkv[2], streams, None, 0)
        (out * torch.linspace(0, 1, out.numel(), device=device).view_as(out)).sum().backward()
        found.append([out.detach(), *(x.grad for x in qkv)])
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-3)


def test_flex_attention_refuses_to_train_on_a_cpu() -> None:
    packs = [[Span(commit=(7, 8), kind="prefill")]]
    with pytest.raises(InvalidInput, match="'flex' cannot train on cpu, allowed there are 'split' and 'dense'"):
        attended(packs, 2, "flex", 256)


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(InvalidInput, match="attention is 'sparse', allowed are auto, split, dense, flex"):
        packed([[]], 2, "sparse")  # type: ignore[arg-type]


def test_auto_is_the_split_path_where_there_is_no_cuda() -> None:
    auto, split = (packed(long_packs(), 700, form).streams(torch.float32, CPU) for form in ("auto", "split"))
    assert [(s.rows, s.past) for s in auto] == [(s.rows, s.past) for s in split]


@pytest.mark.parametrize("attention", ["dense", "split"])
def test_masks_come_in_the_dtype_that_attention_computes_in(attention: forms.Attention) -> None:
    streams = packed(long_packs(), 700, attention).streams(torch.bfloat16, CPU)
    assert {s.bias_NQK.dtype for s in streams if isinstance(s.bias_NQK, Tensor)} == {torch.bfloat16}


@pytest.mark.parametrize("chunk", [6, 256])
@pytest.mark.parametrize("attention", ["dense", "split"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_padding_gives_no_nan_and_changes_no_row(
    dtype: torch.dtype, attention: forms.Attention, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forms, "CHUNK", chunk)
    span = Span(commit=(7, 8, 9), canvases=(masks(2, 1), masks(3, 2)), kind="prefill")
    qkv = random_qkv(24, dtype)
    padded = attend_streams(*qkv, packed([[span], []], 12, attention).streams(dtype, CPU), None, 0)
    assert padded.isfinite().all()
    n = span.n_rows
    tight = attend_streams(*(x[:n] for x in qkv), packed([[span]], n, attention).streams(dtype, CPU), None, 0)
    torch.testing.assert_close(padded[:n], tight)
    torch.testing.assert_close(padded[12:].unflatten(-1, (4, -1)), qkv[2][12:].repeat_interleave(2, 1))


@pytest.mark.parametrize("attention", ["dense", "split"])
def test_padding_gives_a_model_no_nan_forward_or_backward(attention: forms.Attention) -> None:
    model = tiny_model()
    visibility = packed([[Span(commit=(7, 8), kind="prefill")], []], 6, attention)
    tokens = torch.tensor([7, 8, *([MASK] * 10)])
    positions = torch.tensor([0, 1, *([0] * 10)])
    embedded = model.embedding.detach().clone().requires_grad_(True)
    hidden = torch.func.functional_call(model, {"embedding": embedded}, (tokens, positions, visibility))
    hidden[:2].sum().backward()
    assert hidden.isfinite().all()
    assert embedded.grad is not None
    assert embedded.grad.isfinite().all()
