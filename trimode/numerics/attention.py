"""Attention of one group of equal streams. Knows shapes and a bias; not who decided what is visible.

Suffixes: N streams, Q query rows, S key rows, H query heads, G key heads, K head size.
"""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from trimode.errors import InvalidInput


def attend(
    q_NHQK: Tensor, k_NGSK: Tensor, v_NGSK: Tensor, bias_NQS: Tensor | BlockMask | None, is_causal: bool = False
) -> Tensor:
    """softmax(q·k / sqrt(K) + bias)·v -> [N, H, Q, K]; query head h reads key head h // (H / G).

    `is_causal`, without a bias: query i sees keys 0 to i.
    """
    if bias_NQS is None and k_NGSK.shape[2] == 1:  # a softmax over one score is 1
        return v_NGSK.repeat_interleave(q_NHQK.shape[1] // k_NGSK.shape[1], 1).expand(q_NHQK.shape)
    grouped = q_NHQK.shape[1] != k_NGSK.shape[1]
    if isinstance(bias_NQS, BlockMask):
        return _flex(q_NHQK, k_NGSK, v_NGSK, bias_NQS, grouped)
    return F.scaled_dot_product_attention(
        q_NHQK, k_NGSK, v_NGSK, attn_mask=bias_NQS, is_causal=is_causal, enable_gqa=grouped
    )


def _flex(q_NHQK: Tensor, k_NGSK: Tensor, v_NGSK: Tensor, mask: BlockMask, grouped: bool) -> Tensor:
    """FlexAttention: its compiled kernels on CUDA, elsewhere its plain definition, which has no backward pass."""
    if q_NHQK.is_cuda:
        out: Tensor = _compiled()(q_NHQK, k_NGSK, v_NGSK, block_mask=mask, enable_gqa=grouped)
        return out
    if torch.is_grad_enabled() and (q_NHQK.requires_grad or k_NGSK.requires_grad or v_NGSK.requires_grad):
        raise InvalidInput(
            f"attention 'flex' cannot train on {q_NHQK.device.type}, allowed there are 'split' and 'dense'"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the plain definition is slow
        return flex_attention(q_NHQK, k_NGSK, v_NGSK, block_mask=mask, enable_gqa=grouped)


@cache
def _compiled() -> Callable[..., Any]:
    return torch.compile(flex_attention)
