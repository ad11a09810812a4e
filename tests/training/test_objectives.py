"""The loss is what its formula says (spec T11), and nobody sees what it is asked for: values, counts and gradients."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.fakes import MASK, tiny_model
from tests.texts import CLEAN, canvas_logits, causal_logits, first_rows, pack_in, some_documents, some_samples
from trimode.models.transformer import Transformer
from trimode.numerics.noise import Noise
from trimode.spans import Canvas
from trimode.training.batch import Batch, Scored
from trimode.training.objectives import Joint, value
from trimode.training.samples import Sample

NOISE = Noise(block_sizes=(4, 8), all_masked_share=0.3, infill_share=0.3, views=2)
SHARES = Noise(block_sizes=(4, 8), scheme="sequence")
ALL_MASKED = Noise(block_sizes=(4,), all_masked_share=1.0)
EQUAL = {"ar": 1.0, "diffusion": 1.0}
STREAMS = 2
HOLE = 6  # which of `some_documents` has one: its canvases show clean text


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Of one batch alone."""

    value: Tensor
    parts: dict[str, Tensor]
    counts: dict[str, int]


def joint_loss(model: Transformer, batch: Batch, weights: dict[str, float]) -> Loss:
    joint = Joint(weights=weights)
    sums, counts = joint.sums(model, batch), joint.counts(batch)
    parts = {name: (part / max(counts[name], 1)).detach() for name, part in sums.items()}
    return Loss(value=value(sums, counts, weights), parts=parts, counts=counts)


def model() -> Transformer:
    """Losses near ln(61), as of a model that has learned little."""
    return tiny_model(sharpness=0.1)


def loss_of(samples: Sequence[Sample], weights: dict[str, float] = EQUAL) -> Loss:
    return joint_loss(model(), pack_in(STREAMS, samples), weights)


def ar_by_hand(samples: Sequence[Sample]) -> Tensor:
    """Next-token cross entropy of every text alone, over its scored tokens, divided by their number."""
    parts = []
    for document, sample in zip(some_documents(), samples, strict=True):
        logits, labels = causal_logits(model(), sample.span.commit), torch.tensor(sample.span.commit)
        for first, last in document.answers:
            rows, named = slice(max(first, 1) - 1, last - 1), slice(max(first, 1), last)
            parts.append(F.cross_entropy(logits[rows], labels[named], reduction="none"))
    return torch.cat(parts).mean()


def looks(samples: Sequence[Sample]) -> Iterator[tuple[Sample, Canvas, int, list[tuple[int, float]]]]:
    """(sample, canvas, first row of the canvas in the sample, [(slot, weight) of its masked targets])."""
    for sample in samples:
        row = len(sample.span.commit)
        for canvas in sample.span.canvases:
            end = row + len(canvas.tokens)
            yield sample, canvas, row, [(t.row - row, t.weight) for t in sample.diffusion if row <= t.row < end]
            row = end


def test_without_canvases_the_loss_is_next_token_cross_entropy() -> None:
    samples = some_samples(None)
    loss = loss_of(samples, {"ar": 1.0, "diffusion": 0.3})
    assert loss.value.item() == pytest.approx(ar_by_hand(samples).item(), abs=1e-6)
    assert loss.parts["diffusion"] == 0
    assert loss.counts == {"ar": sum(len(sample.ar) for sample in samples), "diffusion": 0}


def test_canvases_do_not_change_the_autoregressive_part() -> None:
    plain, joint = loss_of(some_samples(None)), loss_of(some_samples(NOISE))
    assert joint.parts["ar"].item() == pytest.approx(plain.parts["ar"].item(), abs=1e-6)
    assert joint.counts["ar"] == plain.counts["ar"]


def test_with_everything_masked_at_weight_one_the_diffusion_part_is_a_plain_cross_entropy() -> None:
    samples = [sample for sample in some_samples(ALL_MASKED) if sample.index != HOLE]
    parts = []
    for sample, canvas, _, masked in looks(samples):
        assert set(canvas.tokens) == {MASK}
        assert masked == [(slot, 1.0) for slot in range(len(masked))]
        text = sample.span.commit
        logits = canvas_logits(model(), text[: canvas.after], [MASK] * len(canvas.tokens))
        labels = torch.tensor(text[canvas.after : canvas.after + len(masked)])
        parts.append(F.cross_entropy(logits[: len(masked)], labels, reduction="none"))
    loss = loss_of(samples)
    expected = torch.cat(parts)
    assert loss.counts["diffusion"] == len(expected)
    assert loss.parts["diffusion"].item() == pytest.approx(expected.mean().item(), abs=1e-6)


@pytest.mark.parametrize("noise", [NOISE, SHARES], ids=["block", "sequence"])
@pytest.mark.parametrize("seed", range(2))
def test_the_diffusion_part_is_the_weighted_sum_over_masks_divided_by_all_targets(seed: int, noise: Noise) -> None:
    samples = some_samples(noise, seed)
    total = 0.0
    for sample, canvas, _, masked in looks(samples):
        log_p = canvas_logits(model(), sample.span.commit[: canvas.after], canvas.tokens).log_softmax(-1)
        total -= sum(w * log_p[slot, sample.span.commit[canvas.after + slot]].item() for slot, w in masked)
    n_targets = sum(document.n_targets for document in some_documents())
    loss = loss_of(samples)
    assert loss.counts["diffusion"] == n_targets
    assert loss.parts["diffusion"].item() == pytest.approx(total / n_targets, rel=1e-6)


def test_the_two_weights_weigh_the_two_parts() -> None:
    samples = some_samples(NOISE)
    loss = loss_of(samples, {"ar": 0.5, "diffusion": 0.25})
    assert loss.value.item() == pytest.approx(0.5 * loss.parts["ar"].item() + 0.25 * loss.parts["diffusion"].item())
    assert Joint().weights == {"ar": 1.0, "diffusion": 0.3}


def test_packing_changes_no_sum() -> None:
    samples = [*some_samples(NOISE, 0), *some_samples(NOISE, 1)]
    sums = []
    for parts in ([samples], [samples[:3], samples[3:]], [[sample] for sample in samples]):
        for streams in (1, 3):
            losses = [joint_loss(model(), pack_in(min(streams, len(part)), part), EQUAL) for part in parts]
            sums.append([sum(loss.parts[n].item() * loss.counts[n] for loss in losses) for n in ("ar", "diffusion")])
    for other in sums[1:]:
        assert other == pytest.approx(sums[0], rel=2e-6)


# Who sees whom, read off the gradients: every input row gets an embedding of its own.


def row_gradients(batch: Batch) -> Tensor:
    """How much each input row moves the diffusion part, [T]."""
    own = copy.deepcopy(model())
    own.embedding = nn.Parameter(own.embedding[batch.tokens_T].clone())
    fed = replace(batch, tokens_T=torch.arange(len(batch.tokens_T)))
    joint_loss(own, fed, {"ar": 0.0, "diffusion": 1.0}).value.backward()
    assert own.embedding.grad is not None
    return own.embedding.grad.abs().sum(-1)


def only(batch: Batch, rows: Sequence[int]) -> Batch:
    """The same batch, only these canvas rows scored."""
    kept = torch.tensor([row in rows for row in batch.diffusion.rows_S.tolist()])
    assert kept.any()
    chosen = Scored(
        rows_S=batch.diffusion.rows_S[kept],
        labels_S=batch.diffusion.labels_S[kept],
        weights_S=batch.diffusion.weights_S[kept],
        count=1,
    )
    return replace(batch, diffusion=chosen)


def blocks_in(samples: Sequence[Sample], batch: Batch) -> Iterator[tuple[range, range, range]]:
    """(rows of the earlier clean text, rows of the same and later clean text, rows of the canvas) of every block."""
    starts = {id(sample): start for sample, start in zip(samples, first_rows(STREAMS, samples, batch), strict=True)}
    for sample, canvas, row, _ in looks(samples):
        start = starts[id(sample)]
        border, end = start + canvas.after, start + len(sample.span.commit)
        yield range(start, border), range(border, end), range(start + row, start + row + len(canvas.tokens))


def test_a_block_is_learned_from_earlier_clean_text_and_its_own_canvas_and_nothing_else() -> None:
    samples = some_samples(NOISE)
    batch = pack_in(STREAMS, samples)
    for earlier, later, canvas in blocks_in(samples, batch):
        moved = row_gradients(only(batch, canvas)).nonzero()[:, 0].tolist()
        assert moved == [*earlier, *canvas]  # a leak would list rows of `later`
        assert not set(moved) & set(later)


def test_the_autoregressive_part_learns_nothing_from_canvases() -> None:
    samples = some_samples(NOISE)
    batch = pack_in(STREAMS, samples)
    own = copy.deepcopy(model())
    own.embedding = nn.Parameter(own.embedding[batch.tokens_T].clone())
    fed = replace(batch, tokens_T=torch.arange(len(batch.tokens_T)))
    joint_loss(own, fed, {"ar": 1.0, "diffusion": 0.0}).value.backward()
    assert own.embedding.grad is not None
    starts = first_rows(STREAMS, samples, batch)
    read = [start + row for start, s in zip(starts, samples, strict=True) for row in range(len(s.span.commit) - 1)]
    assert sorted(own.embedding.grad.abs().sum(-1).nonzero()[:, 0].tolist()) == sorted(read)


def changed(batch: Batch, rows: Sequence[int]) -> Batch:
    """Other clean tokens at these rows; labels stay."""
    tokens = batch.tokens_T.clone()
    for row in rows:
        tokens[row] = CLEAN[(CLEAN.index(int(tokens[row])) + 1) % len(CLEAN)]
    return replace(batch, tokens_T=tokens)


def test_the_loss_of_a_block_knows_no_token_that_is_forbidden() -> None:
    samples = some_samples(NOISE)
    batch = pack_in(STREAMS, samples)
    for earlier, later, canvas in blocks_in(samples, batch):
        scored = only(batch, canvas)
        before = joint_loss(model(), scored, EQUAL).parts["diffusion"]
        assert torch.equal(joint_loss(model(), changed(scored, later), EQUAL).parts["diffusion"], before)
        if earlier:
            after = joint_loss(model(), changed(scored, earlier[:1]), EQUAL).parts["diffusion"]
            assert not torch.equal(after, before)
