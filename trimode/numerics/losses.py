"""Losses as sums with counts, in float32. Knows logits and labels; not where they came from.

Suffixes: S selected rows, D model, V vocabulary.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK = 1024


def surprise(hidden_SD: Tensor, labels_S: Tensor, logits: Callable[[Tensor], Tensor]) -> Tensor:
    """-log softmax(logits(hidden_s))[label_s] in nats [S], without a gradient; CHUNK x V scores at a time."""
    with torch.no_grad():
        chunks = zip(hidden_SD.split(CHUNK), labels_S.split(CHUNK), strict=True)
        parts = [F.cross_entropy(logits(hidden).float(), labels, reduction="none") for hidden, labels in chunks]
    return torch.cat(parts)


def weighted_cross_entropy(
    hidden_SD: Tensor, labels_S: Tensor, weights_S: Tensor, logits: Callable[[Tensor], Tensor]
) -> Tensor:
    """sum_s weight_s * -log softmax(logits(hidden_s))[label_s], a scalar.

    Goes through the rows in chunks whose logits are recomputed in the backward pass, so that at most
    CHUNK x V scores exist at a time. Rows of weight 0 are left out. Under autocast the scores are products of that
    dtype; what is done to them is float32.
    """
    kept = weights_S.nonzero()[:, 0]
    if len(kept) < len(weights_S):
        hidden_SD, labels_S, weights_S = hidden_SD[kept], labels_S[kept], weights_S[kept]

    def chunk_loss(hidden: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        return (F.cross_entropy(logits(hidden).float(), labels, reduction="none") * weights).sum()

    total = hidden_SD.new_zeros((), dtype=torch.float32)
    for start in range(0, max(hidden_SD.shape[0], 1), CHUNK):  # no rows: a zero that still reaches every weight
        rows = slice(start, start + CHUNK)
        part = checkpoint(chunk_loss, hidden_SD[rows], labels_S[rows], weights_S[rows], use_reentrant=False)
        total = total + part
    return total
