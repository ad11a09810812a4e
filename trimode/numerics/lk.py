"""The loss of a drafter against its verifier: the LK hybrid (arXiv 2602.23881; arXiv 2607.05722, section 3.3, app. B).

Knows two sets of scores for the same positions; no model, no adapter, no batch. Suffixes: S positions, V vocabulary,
U the support of a position.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

TEMPERATURE = 3.0
SUPPORT = 200
SLOPE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """Of every position: the hybrid, the cross entropy, and whether the latter exists (else it is 0)."""

    hybrid_S: Tensor
    cross_entropy_S: Tensor
    is_known_S: Tensor


def losses(draft_SV: Tensor, verifier_SV: Tensor, chosen_S: Tensor) -> Losses:
    """With q = softmax(draft / 3) and p = softmax(verifier / 3), each renormalised over the union U of the SUPPORT best
    tokens of both: hybrid = lambda * KL(p || q) + (1 - lambda) * 1/2 sum |p - q|, where
    lambda = exp(-SLOPE * sum min(p, q)) carries no gradient; cross entropy = -log of the share that softmax(draft),
    renormalised over U, gives to the token the verifier chose. A choice outside U has none.

    Gradient flows to `draft_SV` only; float32.
    """
    tokens_SU, is_double_SU = support(draft_SV.detach(), verifier_SV)
    draft_SU = draft_SV.gather(1, tokens_SU).float().masked_fill(is_double_SU, float("-inf"))
    verifier_SU = verifier_SV.detach().gather(1, tokens_SU).float().masked_fill(is_double_SU, float("-inf"))
    log_q, log_p = ((x / TEMPERATURE).log_softmax(-1) for x in (draft_SU, verifier_SU))
    q, p = log_q.exp(), log_p.exp()
    divergence_S = (p * (log_p - log_q).masked_fill(is_double_SU, 0.0)).sum(-1)
    variation_S = 0.5 * (p - q).abs().sum(-1)
    share_S = torch.exp(-SLOPE * torch.minimum(p, q).sum(-1)).detach()
    is_chosen_SU = (tokens_SU == chosen_S[:, None]) & ~is_double_SU
    log_share_SU = draft_SU.log_softmax(-1).masked_fill(~is_chosen_SU, 0.0)
    return Losses(
        hybrid_S=share_S * divergence_S + (1 - share_S) * variation_S,
        cross_entropy_S=-log_share_SU.sum(-1),
        is_known_S=is_chosen_SU.any(-1),
    )


def support(draft_SV: Tensor, verifier_SV: Tensor) -> tuple[Tensor, Tensor]:
    """The best tokens of both side by side [S, 2 * min(SUPPORT, V)], and which of them stand there a second time."""
    n = min(SUPPORT, draft_SV.shape[1])
    ours, theirs = draft_SV.topk(n).indices, verifier_SV.topk(n).indices
    is_theirs_SV = torch.zeros_like(draft_SV, dtype=torch.bool).scatter_(1, theirs, True)
    is_double = torch.cat([torch.zeros_like(theirs, dtype=torch.bool), is_theirs_SV.gather(1, ours)], 1)
    return torch.cat([theirs, ours], 1), is_double


def active(drafts_S: Tensor, chosen_S: Tensor, canvases_S: Tensor) -> Tensor:
    """The drafts a verifier would look at: of every canvas those it accepts, and the first it rejects; booleans [S].

    drafts    3 5 7 2 | 4 1
    chosen    3 5 6 2 | 4 1
    active    x x x . | x x
    """
    is_wrong = (drafts_S != chosen_S).long()
    before = is_wrong.cumsum(0) - is_wrong
    n_each = torch.unique_consecutive(canvases_S, return_counts=True)[1]
    firsts = n_each.cumsum(0) - n_each
    return before == before[firsts].repeat_interleave(n_each)
