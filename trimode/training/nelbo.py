"""How likely a model finds texts: the bound of its canvases, and the exact value of its causal rows. Nats per target.

The bound is the diffusion part of the joint objective without any emphasis (arXiv 2110.02037, eq. 6, per block). Its
noise is fixed here: nothing that reweighs masks can evaluate a likelihood. Bounds of different block sizes are
different bounds. docs/objectives.md has the formulas.

Suffixes: N documents, R draws.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from trimode.errors import InvalidInput
from trimode.models.transformer import Model
from trimode.numerics.losses import surprise
from trimode.numerics.noise import Noise
from trimode.training.batch import pack
from trimode.training.documents import Document, Special
from trimode.training.samples import Sample, make_sample

ROWS = 4096  # rows of a forward, unless one text alone has more


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Of -log p of these documents, in nats per target.

    standard_error is that of the noise, for these very documents: how far other draws would move the value; None where
    one draw says nothing of it. document_error is that of the documents as a sample of all texts, noise included; None
    where there is only one. block_size is None for the exact value. nats are those of every document, the mean of its
    draws.
    """

    per_token: float
    standard_error: float | None
    document_error: float | None
    n_tokens: int
    draws: int
    block_size: int | None
    nats: tuple[float, ...]


def nelbo(
    model: Model, documents: Sequence[Document], block_size: int, *, draws: int, seed: int, special: Special
) -> Estimate:
    """The any-order bound within blocks, averaged over `draws` phases and masks of every document; unbiased.

    At block size 1 every target is masked alone behind its clean past: nothing is drawn, and one draw is exact. What
    stands behind a hole is not seen, so that every document is evaluated as it would be written, left to right.
    """
    if draws < 1:
        raise InvalidInput(f"draws is {draws}, allowed is at least 1")
    noise = Noise(block_sizes=(block_size,), all_masked_share=0.0)
    causal = [replace(document, hole=None) for document in documents]
    drawn, n_targets = [], [0]
    for draw in range(draws):
        samples = [make_sample(d, noise, special, f"{seed}:{draw}:{i}", i) for i, d in enumerate(causal)]
        drawn.append(_nats(model, samples, special.mask_token_id, "diffusion"))
        n_targets = [sample.n_diffusion for sample in samples]
    return _estimate(torch.stack(drawn, 1), n_targets, block_size)


def exact_nll(model: Model, documents: Sequence[Document]) -> Estimate:
    """-log p of the targets by the causal rows: exact, and comparable with any autoregressive model.

    A target without a token before it has no row and is left out.
    """
    special = Special(mask_token_id=0)  # only pads
    samples = [make_sample(document, None, special, "", i) for i, document in enumerate(documents)]
    nats_N = _nats(model, samples, special.mask_token_id, "ar")
    return _estimate(nats_N[:, None], [len(sample.ar) for sample in samples], None)


def _estimate(nats_NR: Tensor, n_targets: Sequence[int], block_size: int | None) -> Estimate:
    n_tokens, (n_documents, draws) = sum(n_targets), nats_NR.shape
    if n_tokens == 0:
        raise InvalidInput("no document has a target to evaluate")
    per_token = float(nats_NR.mean(1).sum() / n_tokens)
    # The noise of one document tells nothing of another's, so the variances of their means add up.
    noise = float((nats_NR.var(1) / draws).sum().sqrt() / n_tokens) if draws > 1 else None
    residue_N = nats_NR.mean(1) - per_token * torch.tensor(n_targets)
    across = (residue_N.square().sum() * n_documents / max(n_documents - 1, 1)).sqrt() / n_tokens
    return Estimate(
        per_token=per_token,
        standard_error=0.0 if block_size in (1, None) else noise,
        document_error=float(across) if n_documents > 1 else None,
        n_tokens=n_tokens, draws=draws, block_size=block_size, nats=tuple(nats_NR.mean(1).tolist()),
    )  # fmt: skip


def _nats(model: Model, samples: Sequence[Sample], mask_token_id: int, part: Literal["ar", "diffusion"]) -> Tensor:
    """Weighted -log p of the targets of every sample, [N] in float64."""
    nats_N = torch.zeros(len(samples), dtype=torch.float64)
    for group in _groups([sample.span.n_rows for sample in samples]):
        chosen = [samples[i] for i in group]
        rows = max(sample.span.n_rows for sample in chosen)
        batch = pack([[sample] for sample in chosen], rows, mask_token_id).to(model.device)
        scored = getattr(batch, part)
        with torch.no_grad():
            hidden_TD = model(batch.tokens_T, batch.positions_T, batch.visibility)
        nats_S = surprise(hidden_TD[scored.rows_S], scored.labels_S, model.logits).cpu().double()
        weighted = (nats_S * scored.weights_S.cpu().double()).split([len(getattr(sample, part)) for sample in chosen])
        nats_N[group] = torch.stack([each.sum() for each in weighted])
    return nats_N


def _groups(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Samples of like size side by side, at most ROWS rows with their padding."""
    group: list[int] = []
    for i in sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True):
        if group and (len(group) + 1) * sizes[group[0]] > ROWS:
            yield group
            group = []
        group.append(i)
    if group:
        yield group
