"""Logits -> how probable tokens are: the likeliest few of a row, and one that is named to it. Chooses nothing.

Suffixes: S rows, R those of them that are asked, V vocabulary, N likeliest tokens.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from trimode.spans import Told


def told(logits_SV: Tensor, n_best_S: Sequence[int], named_S: Sequence[int | None], banned: Tensor) -> Told | None:
    """What the rows tell that are asked for their likeliest tokens or have a token named; None where none is."""
    asked = [row for row, (n, token) in enumerate(zip(n_best_S, named_S, strict=True)) if n or token is not None]
    if not asked:
        return None
    logits_RV = logits_SV[torch.tensor(asked, device=logits_SV.device)].float()
    logprob_RV = logits_RV - logits_RV.logsumexp(-1, keepdim=True)
    out = _nothing(len(n_best_S), min(max(n_best_S), logits_RV.shape[-1] - len(banned)))
    best = logprob_RV.index_fill(-1, banned, float("-inf")).topk(out.token_SN.shape[1])
    out.token_SN[asked], out.logprob_SN[asked] = best.indices.cpu().numpy(), best.values.cpu().numpy()
    _tell_named(out, logprob_RV, asked, named_S)
    return out


def _nothing(n_rows: int, n_best: int) -> Told:
    return Told(
        token_SN=np.zeros((n_rows, n_best), np.int64), logprob_SN=np.full((n_rows, n_best), np.nan),
        named_logprob_S=np.full(n_rows, np.nan), named_rank_S=np.zeros(n_rows, np.int64),
    )  # fmt: skip


def _tell_named(out: Told, logprob_RV: Tensor, asked: Sequence[int], named_S: Sequence[int | None]) -> None:
    """Log-probabilities and ranks of the named tokens. Mutates `out`."""
    places = [(index, row, token) for index, row in enumerate(asked) if (token := named_S[row]) is not None]
    if not places:
        return
    index_C, _, token_C = (torch.tensor(column, device=logprob_RV.device) for column in zip(*places, strict=True))
    logprob_C = logprob_RV[index_C, token_C]
    rank_C = (logprob_RV[index_C] > logprob_C[:, None]).sum(-1) + 1
    rows = [row for _, row, _ in places]
    out.named_logprob_S[rows], out.named_rank_S[rows] = logprob_C.cpu().numpy(), rank_C.cpu().numpy()
