"""The cache: rows are written behind the committed ones, keeping is one assignment, growing loses nothing."""

import pytest
import torch
from torch import Tensor

from trimode.cache import Cache, KVPool

LAYERS, HEADS, SIZE = 2, 3, 4


def new(capacity: int = 8, dtype: torch.dtype = torch.float32) -> Cache[KVPool]:
    return Cache(KVPool(LAYERS, HEADS, SIZE, capacity, dtype, torch.device("cpu")))


def rows(n: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, n, HEADS, SIZE, generator=generator))  # type: ignore[return-value]


def commit(cache: Cache[KVPool], n: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Append and keep n rows in every layer; what was written, per layer."""
    written = [rows(n, seed + layer) for layer in range(LAYERS)]
    for layer, (k, v) in enumerate(written):
        cache.pool.write(cache, layer, k, v)
    cache.keep(cache.length + n)
    return written


def test_a_new_cache_is_empty() -> None:
    assert (new(5).length, new(5).capacity) == (0, 5)


def test_append_returns_past_and_new_rows_head_first() -> None:
    cache = new()
    (past_k, past_v), _ = commit(cache, 3)
    k, v = rows(2, 9)
    seen_k, seen_v = cache.pool.write(cache, 0, k, v)
    assert torch.equal(seen_k, torch.cat([past_k, k]).transpose(0, 1))
    assert torch.equal(seen_v, torch.cat([past_v, v]).transpose(0, 1))


def test_append_does_not_commit_and_the_next_append_overwrites() -> None:
    cache = new()
    commit(cache, 2)
    cache.pool.write(cache, 0, *rows(4, 5))
    assert cache.length == 2
    k, v = rows(1, 6)
    seen_k, seen_v = cache.pool.write(cache, 0, k, v)
    assert seen_k.shape == (HEADS, 3, SIZE)
    assert torch.equal(seen_k[:, 2], k[0]) and torch.equal(seen_v[:, 2], v[0])


def test_layers_do_not_touch_each_other() -> None:
    cache = new()
    written = commit(cache, 3)
    cache.pool.write(cache, 0, *rows(2, 7))
    seen_k, _ = cache.pool.write(cache, 1, *rows(1, 8))
    assert torch.equal(seen_k[:, :3], written[1][0].transpose(0, 1))


def test_append_returns_views_and_copies_nothing() -> None:
    cache = new()
    seen_k, seen_v = cache.pool.write(cache, 1, *rows(2, 0))
    assert seen_k.untyped_storage().data_ptr() == cache.pool.k_LGSK.untyped_storage().data_ptr()
    assert seen_v.untyped_storage().data_ptr() == cache.pool.v_LGSK.untyped_storage().data_ptr()


@pytest.mark.parametrize("n_kept", [0, 1, 4, 5])
def test_keep_takes_back_what_lies_beyond(n_kept: int) -> None:
    cache = new()
    written = commit(cache, 5)
    cache.keep(n_kept)
    k, v = rows(2, 11)
    seen_k, _ = cache.pool.write(cache, 0, k, v)
    assert torch.equal(seen_k, torch.cat([written[0][0][:n_kept], k]).transpose(0, 1))


@pytest.mark.parametrize("length", [-1, 9])
def test_keep_refuses_lengths_outside_the_capacity(length: int) -> None:
    cache = new(8)
    with pytest.raises(ValueError, match="8"):
        cache.keep(length)
    assert cache.length == 0


def test_appending_beyond_the_capacity_is_an_error_and_not_a_silent_cut() -> None:
    cache = new(4)
    commit(cache, 3)
    with pytest.raises((RuntimeError, ValueError)):
        cache.pool.write(cache, 0, *rows(2, 1))


@pytest.mark.parametrize("capacity", [0, 3, 8])
def test_reserving_what_is_there_changes_nothing(capacity: int) -> None:
    cache = new(8)
    before = cache.pool.k_LGSK
    cache.reserve(capacity)
    assert cache.pool.k_LGSK is before


@pytest.mark.parametrize(("capacity", "grown"), [(9, 16), (16, 16), (17, 17), (100, 100)])
def test_reserve_grows_at_least_to_the_double(capacity: int, grown: int) -> None:
    cache = new(8)
    cache.reserve(capacity)
    assert cache.capacity == cache.pool.v_LGSK.shape[2] == grown


def test_reserve_keeps_the_committed_rows_of_every_layer() -> None:
    cache = new(4, torch.bfloat16)
    written = commit(cache, 4)
    cache.reserve(11)
    assert cache.length == 4
    assert cache.pool.k_LGSK.dtype == cache.pool.v_LGSK.dtype == torch.bfloat16
    for layer, (k, v) in enumerate(written):
        assert torch.equal(cache.pool.k_LGSK[layer, :, :4], k.bfloat16().transpose(0, 1))
        assert torch.equal(cache.pool.v_LGSK[layer, :, :4], v.bfloat16().transpose(0, 1))


def test_reserving_row_by_row_copies_seldom() -> None:
    cache, copies = new(1), 0
    for length in range(1, 1025):
        before = cache.pool.k_LGSK
        cache.reserve(length)
        copies += cache.pool.k_LGSK is not before
    assert copies == 10
