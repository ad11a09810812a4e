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

CHUNK = 256  # rows of both kinds whose scores exist at a time; a canvas is never cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafter:
    """Parts `lk` and `ce`, each a sum over canvases of the mean over their active slots; both count canvases.

    The randomness is a pure function of (seed, sample, position): the same in every packing and on every rank.
    """

    weights: Mapping[str, float] = field(default_factory=lambda: {"lk": 1.0, "ce": 1.0})
    seed: int = option(0, "seed of the drafts", low=0)
    greedy_share: float = option(0.1, "share of canvases whose drafts are the best token, not a sample", low=0.0, high=1.0)

    def __post_init__(self) -> None:
        check_options(self)

    def counts(self, batch: Batch) -> dict[str, int]:
        n = len(batch.drafts.canvases_S.unique())
        return {"lk": n, "ce": n}

    def sums(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        hidden_TD = model(batch.tokens_T, batch.positions_T, batch.visibility)
        raise NotImplementedError
