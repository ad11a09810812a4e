"""Samples say what they should, are pure functions of (seed, index), and are packed without loss."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.chance import every_outcome
from tests.fakes import MASK
from tests.texts import pack_in, some_documents, some_samples
from trimode.numerics.noise import Noise
from trimode.training import data
from trimode.training.batch import pack
from trimode.training.data import batches
from trimode.training.documents import Document
from trimode.training.samples import Sample, make_sample

NOISE = Noise(block_sizes=(4, 8), draft_share=0.5)
UNBIASED = Noise(block_sizes=(1, 3), draft_share=0.0)

documents = st.builds(
    lambda n, prompt: Document.text(tuple(range(10, 10 + n)), min(prompt, n)),
    st.integers(1, 40),
    st.integers(0, 20),
)
noises = st.builds(
    lambda sizes, share: Noise(block_sizes=tuple(sizes), draft_share=share),
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
    st.floats(0, 1),
)


def numbered(index: int) -> Document:
    """Document i has the tokens 100 i + 10, 100 i + 11, ...: every token tells where it comes from."""
    rng = random.Random(index)
    first = 100 * index + 10
    length = rng.randint(2, 40)
    return Document.text(tuple(range(first, first + length)), rng.randint(1, length - 1))


@given(documents, noises, st.integers())
def test_canvases_show_masks_and_clean_text_and_name_the_masked(document: Document, noise: Noise, seed: int) -> None:
    sample = make_sample(document, noise, MASK, random.Random(seed))
    text, row, found = document.tokens, len(document.tokens), []
    for canvas in sample.span.canvases:
        for slot, token in enumerate(canvas.tokens):
            position = canvas.after + slot
            if token != MASK:
                assert token == text[position]
            elif position < len(text):
                found.append((row + slot, text[position]))
        row += len(canvas.tokens)
    assert [(target.row, target.label) for target in sample.diffusion] == found


@given(documents, noises, st.integers())
def test_canvases_cover_the_targets_once_and_never_the_prompt(document: Document, noise: Noise, seed: int) -> None:
    sample = make_sample(document, noise, MASK, random.Random(seed))
    n, covered = len(document.tokens), []
    for canvas in sample.span.canvases:
        covered += range(canvas.after, min(canvas.after + len(canvas.tokens), n))
    assert covered == list(range(document.answers[0][0], n))
    assert sample.n_diffusion == len(covered)
    assert sample.span.commit == document.tokens


@given(documents, noises, st.integers())
def test_the_block_at_the_end_keeps_its_size_with_masks_that_nobody_scores(
    document: Document, noise: Noise, seed: int
) -> None:
    sample = make_sample(document, noise, MASK, random.Random(seed))
    if not sample.span.canvases:
        assert document.answers[0][0] == len(document.tokens)
        return
    *inner, last = sample.span.canvases
    n = len(document.tokens)
    assert len(last.tokens) in noise.block_sizes
    assert last.after + len(last.tokens) >= n
    assert set(last.tokens[n - last.after :]) <= {MASK}
    assert all(canvas.after + len(canvas.tokens) <= n for canvas in inner)
    unscored = sample.span.n_rows - (last.after + len(last.tokens) - n)
    assert all(target.row < unscored for target in sample.diffusion)


@given(documents, st.none() | noises)
def test_every_target_is_the_next_token_of_a_commit_once(document: Document, noise: Noise | None) -> None:
    sample = make_sample(document, noise, MASK, random.Random(0))
    expected = [(i - 1, document.tokens[i], 1.0) for i in range(max(document.answers[0][0], 1), len(document.tokens))]
    assert [(target.row, target.label, target.weight) for target in sample.ar] == expected
    assert noise is not None or (sample.span.canvases, sample.n_diffusion) == ((), 0)


def test_every_target_has_an_expected_weight_of_exactly_one() -> None:
    """Over block sizes, phases and masks, cut tail included: the diffusion loss is unbiased as a whole."""
    document = Document.text((10, 11, 12, 13, 14, 15), 2)
    expected: Counter[int] = Counter()
    for chance, sample in every_outcome(lambda rng: make_sample(document, UNBIASED, MASK, rng)):
        for target in sample.diffusion:
            expected[target.label] += float(chance) * target.weight  # type: ignore[assignment]
    assert expected == pytest.approx(dict.fromkeys((12, 13, 14, 15), 1.0), rel=1e-12)


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
