"""Attention of one group of equal streams. Knows shapes and a bias; not who decided what is visible.

Suffixes: N streams, Q query rows, S key rows, H query heads, G key heads, K head size.
"""

import torch.nn.functional as F
from torch import Tensor


def attend(q_NHQK: Tensor, k_NGSK: Tensor, v_NGSK: Tensor, bias_NQS: Tensor | None) -> Tensor:
    """softmax(q·k / sqrt(K) + bias)·v -> [N, H, Q, K]; query head h reads key head h // (H / G)."""
    grouped = q_NHQK.shape[1] != k_NGSK.shape[1]
    return F.scaled_dot_product_attention(q_NHQK, k_NGSK, v_NGSK, attn_mask=bias_NQS, enable_gqa=grouped)
