"""How likely a model finds texts: the bound of its canvases, and the exact value of its causal rows. Nats per target.

The bound is the diffusion part of the joint objective without any emphasis (arXiv 2110.02037, eq. 6, per block): its
noise is fixed here, because nothing that reweighs masks may evaluate a likelihood. Bounds of different block sizes are
different bounds. docs/objectives.md has the formulas.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trimode.errors import InvalidInput
from trimode.models.transformer import Model
from trimode.numerics.losses import surprise
from trimode.numerics.noise import Noise
from trimode.options import check_options, option
from trimode.training.batch import pack
from trimode.training.documents import Document, Special
from trimode.training.samples import Sample, make_sample

ROWS = 4096  # rows of a forward, unless one text alone has more


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Of -log p of these documents, per target.

    standard_error is that of the noise, for these very documents: how far other draws would move the value. None where
    one draw says nothing of it. document_error is that of the documents as a sample of all texts (noise included), None
    where there is one only. block_size is None for the exact value.
    """

    per_token: float
    standard_error: float | None
    document_error: float | None
    n_tokens: int
    draws: int
    block_size: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The parameters of `nelbo` with their ranges."""

    block_size: int = option(32, "slots of a block", low=1)
    draws: int = option(8, "how often every document is masked anew", low=1)

    def __post_init__(self) -> None:
        check_options(self)


def nelbo(
    model: Model, documents: Sequence[Document], block_size: int, *, draws: int, seed: int, special: Special
) -> Estimate:
    """The any-order bound within blocks, averaged over `draws` phases and masks of every document; unbiased.

    At block size 1 every target is masked alone behind its clean past: nothing is drawn, and one draw is exact.
    """
    Evaluation(block_size=block_size, draws=draws)
    noise = Noise(block_sizes=(block_size,), all_masked_share=0.0)
    nats_ND = torch.stack(
        [
            _nats(model, [make_sample(d, noise, special, f"{seed}:{draw}:{i}", i) for i, d in enumerate(documents)],
                  special.mask_token_id)
            for draw in range(draws)
        ],
        1,
    )  # fmt: skip
    return _estimate(nats_ND, documents, block_size)


def exact_nll(model: Model, documents: Sequence[Document]) -> Estimate:
    """-log p of the targets by the causal rows: exact, one forward, comparable with any autoregressive model."""
    special = Special(mask_token_id=0)  # pads only
    samples = [make_sample(document, None, special, "", i) for i, document in enumerate(documents)]
    return _estimate(_nats(model, samples, 0)[:, None], documents, None)
