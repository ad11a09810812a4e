"""A batch is its samples side by side, padded with what nobody sees or scores."""

import pytest
import torch

from tests.fakes import MASK
from tests.texts import pack_in, some_samples
from trimode.numerics.noise import Noise
from trimode.training.batch import pack

NOISE = Noise(block_sizes=(4, 8), all_masked_share=0.0)


def test_a_batch_is_its_samples_side_by_side() -> None:
    samples = some_samples(NOISE)
    batch = pack_in(2, samples)
    rows = max(sum(sample.span.n_rows for sample in part) for part in (samples[::2], samples[1::2])) + 3
    assert len(batch.tokens_T) == len(batch.positions_T) == 2 * rows
    labels = [target.label for sample in [*samples[::2], *samples[1::2]] for target in sample.diffusion]
    assert batch.diffusion.labels_S.tolist() == labels
    assert set(batch.tokens_T[batch.diffusion.rows_S].tolist()) == {MASK}
    following = batch.tokens_T[batch.ar.rows_S + 1]
    assert torch.equal(following, batch.ar.labels_S)
    assert torch.equal(batch.positions_T[batch.ar.rows_S + 1], batch.positions_T[batch.ar.rows_S] + 1)
    assert batch.diffusion.count == sum(sample.n_diffusion for sample in samples)


def test_a_pack_longer_than_its_stream_is_refused() -> None:
    (sample, *_) = some_samples(None)
    with pytest.raises(ValueError, match="a pack has 13 rows, a stream holds 12"):
        pack([[sample]], 12, MASK)
