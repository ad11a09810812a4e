"""Samples are pure functions of (seed, index), and are packed without loss."""

import random
from collections.abc import Iterator, Sequence
from itertools import islice

import pytest
import torch

from tests.fakes import MASK
from tests.texts import pack_in, some_documents, some_samples
from trimode.numerics.noise import Noise
from trimode.training import data
from trimode.training.batch import pack
from trimode.training.data import batches
from trimode.training.documents import Document
from trimode.training.samples import Sample

NOISE = Noise(block_sizes=(4, 8), all_masked_share=0.0)


def numbered(index: int) -> Document:
    """Document i has the tokens 100 i + 10, 100 i + 11, ...: every token tells where it comes from."""
    rng = random.Random(index)
    first = 100 * index + 10
    length = rng.randint(2, 40)
    return Document.text(tuple(range(first, first + length)), rng.randint(1, length - 1))


def test_a_batch_is_its_samples_side_by_side() -> None:
    samples = some_samples(NOISE)
    batch = pack_in(2, samples)
    (stream,) = batch.visibility.given
    assert len(batch.tokens_T) == len(batch.positions_T) == stream.count * stream.rows
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


# Batches, as lists of packs.


@pytest.fixture
def feed(monkeypatch: pytest.MonkeyPatch) -> type:
    """`feed.of(...)` yields what would have been packed."""
    monkeypatch.setattr(data, "pack", lambda packs, rows, mask: [list(part) for part in packs])

    class Feed:
        @staticmethod
        def of(streams: int, rows: int, n: int, seed: int = 7, noise: Noise | None = NOISE) -> Iterator[list]:
            return islice(batches(numbered, noise, MASK, seed=seed, streams=streams, rows=rows), n)  # type: ignore

    return Feed


def by_document(packs: Sequence[Sequence[Sequence[Sample]]]) -> dict[int, Sample]:
    samples = [sample for part in packs for stream in part for sample in stream]
    found = {sample.span.commit[0] // 100: sample for sample in samples}
    assert len(found) == len(samples)  # nothing twice
    return found


@pytest.mark.parametrize(("streams", "rows"), [(1, 100), (3, 100), (4, 256)])
def test_nothing_is_lost_and_no_stream_overflows(streams: int, rows: int, feed: type) -> None:
    packs = list(feed.of(streams, rows, 12))
    found = by_document(packs)
    assert sorted(found) == list(range(len(found)))
    assert all(sample.span.commit == numbered(index).tokens for index, sample in found.items())
    for part in packs:
        assert len(part) == streams
        assert all(0 < sum(sample.span.n_rows for sample in stream) <= rows for stream in part)


def test_batches_are_filled_before_they_are_closed(feed: type) -> None:
    rows = 256
    used = [sum(s.span.n_rows for s in stream) for part in feed.of(4, rows, 12) for stream in part]
    assert sum(used) / (len(used) * rows) > 0.8


def test_a_sample_depends_on_the_seed_and_its_index_alone(feed: type) -> None:
    a, b = by_document(list(feed.of(1, 100, 12))), by_document(list(feed.of(4, 256, 4)))
    shared = sorted(set(a) & set(b))
    assert len(shared) > 10
    assert all(a[index] == b[index] for index in shared)


def test_another_seed_is_other_noise_over_the_same_texts(feed: type) -> None:
    a, b = by_document(list(feed.of(4, 256, 2, seed=7))), by_document(list(feed.of(4, 256, 2, seed=8)))
    shared = sorted(set(a) & set(b))
    assert all(a[index].ar == b[index].ar for index in shared)
    assert sum(a[index].diffusion != b[index].diffusion for index in shared) > len(shared) / 2


def test_two_samples_of_one_text_have_different_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "pack", lambda packs, rows, mask: packs[0])
    same = numbered(5)
    (samples,) = islice(batches(lambda i: same, NOISE, MASK, seed=0, streams=1, rows=600), 1)
    assert len({sample.diffusion for sample in samples}) > len(samples) / 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("noise", [None, NOISE])
@pytest.mark.parametrize("length", [64, 65, 500])
def test_a_document_too_long_for_a_stream_is_cut(noise: Noise | None, length: int) -> None:
    long = Document.text(tuple(range(10, 10 + length)))
    batch = next(batches(lambda i: long, noise, MASK, seed=0, streams=1, rows=64))
    n = int(batch.ar.count) + 1
    assert batch.tokens_T[:n].tolist() == list(long.tokens[:n])
    assert n <= 64 < n * (1 if noise is None else 3) * 10 / 9 + 16  # and by no more than it takes


def test_a_document_whose_answer_is_cut_away_is_left_out() -> None:
    prompt = Document.text(tuple(range(10, 110)), 98)
    short = Document.text(tuple(range(10, 40)))
    feed = batches(lambda i: prompt if i % 2 == 0 else short, NOISE, MASK, seed=0, streams=1, rows=80)
    for batch in islice(feed, 3):
        assert batch.ar.count == batch.diffusion.count == 29


def test_batches_without_noise_have_no_canvases() -> None:
    batch = next(batches(lambda i: some_documents()[i % 5], None, MASK, seed=0, streams=2, rows=64))
    assert batch.diffusion.count == len(batch.diffusion.rows_S) == 0
    assert batch.ar.count > 0
