"""Two ranges of rows per row -> the mask FlexAttention wants. Knows no span.

Suffixes: N streams, Q query rows of a stream, I tiles of queries, J tiles of keys.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

TILE = 128  # rows of a tile: FlexAttention's own default


def sees(first_NQ: Tensor, limit_NQ: Tensor, start_NQ: Tensor, stop_NQ: Tensor) -> Callable[..., Tensor]:
    """mask_mod(stream, head, q, k): whether first <= k < limit or start <= k < stop, at row q of the stream."""

    def mask_mod(stream: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        is_text: Tensor = (k >= first_NQ[stream, q]) & (k < limit_NQ[stream, q])
        return is_text | (k >= start_NQ[stream, q]) & (k < stop_NQ[stream, q])

    return mask_mod


def block_mask(first_NQ: Tensor, limit_NQ: Tensor, start_NQ: Tensor, stop_NQ: Tensor) -> BlockMask:
    """The same as tiles: those nobody looks into are skipped, those everybody sees need no mask.

    Computed from the ranges, at Q x J numbers per stream, where comparing every pair would take Q x Q.
    """
    n, rows = first_NQ.shape
    edge = torch.arange(0, rows, TILE, device=first_NQ.device, dtype=first_NQ.dtype)
    ranges = [(first_NQ[..., None], limit_NQ[..., None]), (start_NQ[..., None], stop_NQ[..., None])]
    is_touched = torch.zeros(n, rows, len(edge), dtype=torch.bool, device=first_NQ.device)
    is_inside = torch.zeros_like(is_touched)
    for low, high in ranges:
        is_touched |= torch.maximum(low, edge) < torch.minimum(high, edge + TILE)
        is_inside |= (low <= edge) & (edge + TILE <= high)
    is_any, is_full = _tiles(is_touched).any(2), _tiles(is_inside).all(2)
    partial, full = _listed(is_any & ~is_full), _listed(is_full)
    return BlockMask.from_kv_blocks(
        *partial, *full, BLOCK_SIZE=TILE, mask_mod=sees(first_NQ, limit_NQ, start_NQ, stop_NQ), seq_lengths=(rows, rows)
    )


def _tiles(rows_NQJ: Tensor) -> Tensor:
    """Queries by tiles, [N, I, TILE, J]; rows that fill up the last tile see nothing, so that it is never full."""
    n, rows, tiles = rows_NQJ.shape
    filled: Tensor = torch.cat([rows_NQJ, rows_NQJ.new_zeros(n, -rows % TILE, tiles)], 1)
    return filled.reshape(n, -1, TILE, tiles)


def _listed(is_NIJ: Tensor) -> tuple[Tensor, Tensor]:
    """How many tiles of keys every tile of queries has, [N, 1, I], and which, these first [N, 1, I, J]; int32."""
    order = is_NIJ.int().argsort(dim=-1, descending=True, stable=True)
    return is_NIJ.sum(-1, dtype=torch.int32)[:, None], order.int()[:, None]
