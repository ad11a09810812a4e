"""Parts of a transformer, as functions of tensors. Know nothing of modes: what a row may see is an argument.

Suffixes: T packed rows, D model, H query heads, G key heads, K head size, N streams, R rows of a stream.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trimode.cache import Cache, KVPool
from trimode.config import Rope
from trimode.numerics.attention import attend
from trimode.numerics.visibility import Stream


def inverse_frequencies(rope: Rope, head_dim: int) -> Tensor:
    """Angles per position, float32 [head_dim / 2], stretched for a longer context as the checkpoint was trained."""
    wavelengths = rope.theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    plain = 1.0 / wavelengths  # rounded exactly as transformers does: at position 262143 one ulp is 0.016 rad
    if rope.kind == "linear":
        return plain / rope.factor
    if rope.kind == "llama3":
        return _llama3(plain, rope)
    if rope.kind == "yarn":
        keep = _fast_share(rope, head_dim)
        return 1.0 / (rope.factor * wavelengths) * (1 - keep) + plain * keep
    return plain


def _llama3(plain: Tensor, rope: Rope) -> Tensor:
    """Slow angles are divided by the factor, fast ones stay, those between are blended (Llama 3.1 model card).

    The blend is linear in how often an angle turns within the original context.
    """
    turns = rope.original_context / (2 * math.pi / plain)
    keep = ((turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)).clamp(0, 1)
    return (1 - keep) * plain / rope.factor + keep * plain


def _fast_share(rope: Rope, head_dim: int) -> Tensor:
    """YaRN (arXiv 2309.00071, section 3.2): 1 for fast angles, which are not stretched, 0 for slow ones."""

    def dimension(turns: float) -> float:
        return head_dim * math.log(rope.original_context / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    low = max(math.floor(dimension(rope.beta_fast)), 0)
    high = min(math.ceil(dimension(rope.beta_slow)), head_dim - 1)
    ramp = (torch.arange(head_dim // 2, dtype=torch.float32) - low) / max(high - low, 0.001)
    return 1 - ramp.clamp(0, 1)


def rotations(
    inverse_K: Tensor, positions_T: Tensor, rope: Rope, n_heads: int, n_kv_heads: int
) -> tuple[Tensor, Tensor]:
    """cos and signed sin for query and key heads together, [T, H + G or 1, head_dim], float32.

    The llama-4 query scale multiplies the query heads' share, so it costs nothing per layer.
    """
    angles = positions_T[:, None].float() * inverse_K
    cos = angles.cos().repeat(1, 2)[:, None] * rope.attention_factor
    sin = angles.sin() * rope.attention_factor
    sin = torch.cat([-sin, sin], dim=-1)[:, None]
    if rope.query_beta:
        scale = query_scale(positions_T, rope)
        heads = torch.cat(
            [scale[:, None].expand(-1, n_heads), torch.ones_like(scale)[:, None].expand(-1, n_kv_heads)], 1
        )
        cos, sin = cos * heads[..., None], sin * heads[..., None]
    return cos, sin


def query_scale(positions_T: Tensor, rope: Rope) -> Tensor:
    """The llama-4 factor on queries, float32 [T]; 1 everywhere for a rope without it."""
    if not rope.query_beta:
        return torch.ones(len(positions_T), device=positions_T.device)
    return 1 + rope.query_beta * torch.log1p(torch.floor(positions_T / rope.original_context))


def rotate(x_THK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Half-split (not interleaved) rotary embedding."""
    half = x_THK.shape[-1] // 2
    return x_THK * cos + x_THK.roll(half, -1) * sin


def rms_norm(x_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight."""
    return F.rms_norm(x_TD, weight_D.shape, weight_D, eps)


def head_norm(qk_THK: Tensor, q_norm_K: Tensor, k_norm_K: Tensor, n_heads: int, eps: float) -> Tensor:
    """RMS norm of each query and each key head, which stand side by side."""
    n_kv_heads = qk_THK.shape[1] - n_heads
    weight_HK = torch.cat([q_norm_K.expand(n_heads, -1), k_norm_K.expand(n_kv_heads, -1)])
    normed_THK = F.rms_norm(qk_THK, qk_THK.shape[-1:], None, eps) * weight_HK
    return normed_THK.to(qk_THK.dtype)  # under autocast the weights are float32


def attend_streams(
    q_THK: Tensor,
    k_TGK: Tensor,
    v_TGK: Tensor,
    streams: Sequence[Stream],
    caches: Sequence[Cache[KVPool]] | None,
    layer: int,
) -> Tensor:
    """Every stream over its own past and itself -> [T, H * K]. With caches, writes the new rows behind their length."""
    packed = _packed(q_THK, k_TGK, v_TGK, streams) if caches is None else []
    parts = []
    for index, stream in enumerate(streams):
        if caches is None:
            q_RHK, k, v = packed[index]
        else:
            rows = slice(stream.start, stream.stop)
            q_RHK = q_THK[rows]
            cache = caches[index]
            k, v = (x[None] for x in cache.pool.write(cache, layer, k_TGK[rows], v_TGK[rows]))
        q = q_RHK.unflatten(0, (stream.count, stream.rows)).transpose(1, 2)
        parts.append(attend(q, k, v, stream.bias_NQK, stream.is_causal).transpose(1, 2).flatten(2).flatten(0, 1))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _packed(
    q_THK: Tensor, k_TGK: Tensor, v_TGK: Tensor, streams: Sequence[Stream]
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Queries [count * rows, H, K], keys and values [count, G, past + rows, K] of every stream, where there are no
    caches: its past is taken from the packed rows."""
    sizes = _sizes(streams)
    queries, keys, values = (x.split(sizes) for x in (q_THK, k_TGK, v_TGK))
    if any(stream.before is not None for stream in streams):
        keys, values = (_WithPast.apply(x, streams) for x in (k_TGK, v_TGK))  # type: ignore[no-untyped-call]
    return [
        (q, k.unflatten(0, (stream.count, -1)).transpose(1, 2), v.unflatten(0, (stream.count, -1)).transpose(1, 2))
        for stream, q, k, v in zip(streams, queries, keys, values, strict=True)
    ]


def _sizes(streams: Sequence[Stream]) -> list[int]:
    return [stream.count * stream.rows for stream in streams]


class _WithPast(torch.autograd.Function):
    """The rows of every stream, behind its past: [past + rows, G, K] each.

    Slices would do, but the backward pass of each is a gradient of all T rows, nearly all zeros. Here all streams add
    to one, in float32.
    """

    @staticmethod
    def forward(ctx: Any, x_TGK: Tensor, streams: Sequence[Stream]) -> tuple[Tensor, ...]:
        ctx.streams = streams
        own = x_TGK.split(_sizes(streams))
        return tuple(
            rows if stream.before is None else torch.cat([x_TGK[stream.before : stream.before + stream.past], rows])
            for stream, rows in zip(streams, own, strict=True)
        )

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        streams: Sequence[Stream] = ctx.streams
        own = [grad[grad.shape[0] - size :] for grad, size in zip(grads, _sizes(streams), strict=True)]
        total_TGK = torch.cat(own).float() if own[0].dtype.itemsize < 4 else torch.cat(own)
        for stream, grad in zip(streams, grads, strict=True):
            if stream.before is not None:
                total_TGK[stream.before : stream.before + stream.past] += grad[: stream.past]
        return total_TGK.to(grads[0].dtype), None
