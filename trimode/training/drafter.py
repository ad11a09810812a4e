"""What a drafting adapter learns: to guess what the verifier will choose, while the model itself stays as it is.

Implements arXiv 2607.05722, section 3.3 and appendix B: at every slot the drafter's scores (the canvas row, adapter on)
are held to the verifier's (the causal row that names the same position, adapter off, no gradient) by the LK hybrid and
a cross entropy to the verifier's choice, over the drafts a verifier would look at: the accepted ones and the first
rejected. The verifier reads the text of the sample, so the best texts are those the model wrote itself.

The model is one whose adapter holds for the rows of drafts alone (`visibility.draft_rows`), so that one forward gives
both; everything but the adapter is frozen by whoever owns the parameters.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from trimode.models.transformer import Model
from trimode.numerics.keyed_noise import gumbel, noise_key, signed
from trimode.numerics.lk import active, losses
from trimode.options import check_options, option
from trimode.training.batch import Batch, Drafts

CHUNK = 256  # drafts whose scores over the vocabulary exist at a time; a canvas is never cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafter:
    """Parts `lk` and `ce`, each a sum over canvases of the mean over their active slots; both count canvases.

    The drafts are a pure function of (seed, sample, position): the same in every packing and on every rank.
    """

    weights: Mapping[str, float] = field(default_factory=lambda: {"lk": 1.0, "ce": 1.0})
    seed: int = option(0, "seed of the drafts", low=0)
    greedy_share: float = option(0.1, "share of canvases that draft the best tokens, not samples", low=0.0, high=1.0)

    def __post_init__(self) -> None:
        check_options(self)

    def counts(self, batch: Batch) -> dict[str, int]:
        n = len(batch.drafts.canvases_S.unique())
        return {"lk": n, "ce": n}

    def sums(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        hidden_TD = model(batch.tokens_T, batch.positions_T, batch.visibility)
        draft_SD = hidden_TD[batch.drafts.rows_S]
        verifier_SD = hidden_TD[batch.drafts.verifiers_S]
        keys_S, is_greedy_S = self._noise(batch)
        total = draft_SD[:0].sum(dtype=torch.float32).expand(2)  # no drafts: a zero that still has a backward pass
        for rows in _chunks(batch.drafts):
            canvases = batch.drafts.canvases_S[rows]
            total = total + checkpoint(
                _chunk_sums, model, draft_SD[rows], verifier_SD[rows], canvases, keys_S[rows], is_greedy_S[rows],
                use_reentrant=False,
            )  # fmt: skip
        return {"lk": total[0], "ce": total[1]}

    def _noise(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The key of every draft's noise, and whether its canvas goes without."""
        drafts, device = batch.drafts, batch.drafts.rows_S.device
        rows = zip(
            drafts.samples_S.tolist(),
            drafts.canvases_S.tolist(),
            batch.positions_T[drafts.rows_S].tolist(),
            strict=True,
        )
        keys, is_greedy, canvas, first = [], [], -1, 0
        for sample, own, position in rows:
            if own != canvas:
                canvas, first = own, position
            keys.append(signed(noise_key(self.seed, sample, position, 0)))
            is_greedy.append(noise_key(self.seed, sample, first, 1) < self.greedy_share * 2**64)
        return (torch.tensor(keys, dtype=torch.long, device=device),
                torch.tensor(is_greedy, dtype=torch.bool, device=device))  # fmt: skip


def _chunks(drafts: Drafts) -> Iterator[slice]:
    """Whole canvases, as many as fit in CHUNK rows, at least one."""
    start = stop = 0
    for n in torch.unique_consecutive(drafts.canvases_S, return_counts=True)[1].tolist():
        if stop > start and stop + n - start > CHUNK:
            yield slice(start, stop)
            start = stop
        stop += n
    if stop > start:
        yield slice(start, stop)


def _chunk_sums(
    model: Model, draft_SD: Tensor, verifier_SD: Tensor, canvases_S: Tensor, keys_S: Tensor, is_greedy_S: Tensor
) -> Tensor:
    """Both parts [2], summed over some whole canvases."""
    draft_SV = model.logits(draft_SD)
    with torch.no_grad():
        verifier_SV = model.logits(verifier_SD)
        chosen_S = verifier_SV.argmax(-1)
        is_active_S = active(drawn(draft_SV, keys_S, is_greedy_S), chosen_S, canvases_S)
    parts = losses(draft_SV, verifier_SV, chosen_S)
    return torch.stack(
        [
            sum_of_means(parts.hybrid_S, is_active_S, canvases_S),
            sum_of_means(parts.cross_entropy_S, is_active_S & parts.is_known_S, canvases_S),
        ]
    )


def drawn(logits_SV: Tensor, keys_S: Tensor, is_greedy_S: Tensor) -> Tensor:
    """A token per row: a sample of softmax(logits), or the best one where the row is greedy."""
    noise_SV = gumbel(keys_S, logits_SV.shape[1]).masked_fill(is_greedy_S[:, None], 0.0)
    return (logits_SV.double() + noise_SV).argmax(-1)


def sum_of_means(values_S: Tensor, is_counted_S: Tensor, canvases_S: Tensor) -> Tensor:
    """Over canvases, the mean of those of its values that count; 0 for a canvas without."""
    own_S = torch.unique_consecutive(canvases_S, return_inverse=True)[1]
    shares_S = is_counted_S.float()
    n_each = shares_S.new_zeros(int(own_S[-1]) + 1).index_add(0, own_S, shares_S)
    return (values_S * shares_S / n_each[own_S].clamp(min=1)).sum()
