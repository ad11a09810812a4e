"""A step is a pure function of (seed, step), the same however it is split; an epoch is every document once."""

import json
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import EOS, MASK, byte_tokenizer
from tests.training.procedural import ProceduralCorpus
from trimode.errors import InvalidInput
from trimode.numerics.noise import Noise
from trimode.training.corpora import Windows
from trimode.training.documents import Document, Special
from trimode.training.encoding import Encoder
from trimode.training.feed import OPEN, Feed, fitted, longest_text, packed_first_fit, shuffled
from trimode.training.samples import make_sample, most_rows
from trimode.training.token_cache import tokenized

NOISE = Noise(block_sizes=(4, 8))
SPECIAL = Special(mask_token_id=MASK)
N, ROWS = 45, 128


def numbered(index: int) -> Document:
    """Document i has the tokens 100 i + 10, 100 i + 11, ...: every token tells where it comes from."""
    rng = random.Random(index)
    length = rng.randint(2, 40)
    return Document.text(tuple(range(100 * index + 10, 100 * index + 10 + length)), rng.randint(1, length - 1))


CORPUS = ProceduralCorpus(N, numbered, "numbered")


def feed(streams: int = 4, *, seed: int = 7, rows: int = ROWS, noise: Noise | None = NOISE) -> Feed:
    return Feed(CORPUS, noise, SPECIAL, seed=seed, rows=rows, streams=streams)


# Order.


def test_a_step_is_a_function_of_seed_and_step_alone() -> None:
    forward = feed()
    in_order = [forward.samples(step) for step in range(30)]
    assert [feed().samples(step) for step in (29, 3, 17)] == [in_order[step] for step in (29, 3, 17)]
    backward = feed()
    assert [backward.samples(step) for step in reversed(range(30))] == in_order[::-1]
    assert feed(seed=8).samples(0) != in_order[0]


def test_every_epoch_is_every_document_once_in_an_order_of_its_own() -> None:
    one = feed(1)
    n_packs = sum(one.plan(epoch).n_packs for epoch in range(3))
    numbers = [number for step in range(n_packs) for number in one.samples(step)]
    assert sorted(numbers) == list(range(3 * N))
    assert numbers == sorted(numbers, key=lambda number: number // N)  # one epoch after the other
    orders = {tuple(number % N for number in numbers[epoch * N : (epoch + 1) * N]) for epoch in range(3)}
    assert len(orders) == 3


def test_steps_take_the_packs_one_after_the_other_across_epochs() -> None:
    one, four = feed(1), feed(4)
    for step in range(12):
        expected = [number for pack in range(4 * step, 4 * step + 4) for number in one.samples(pack)]
        assert list(four.samples(step)) == expected


def test_epochs_are_counted_in_parts() -> None:
    one, four = feed(1), feed(4)
    n_packs = one.plan(0).n_packs
    assert [one.epoch(step) for step in (0, 1, n_packs)] == [0.0, 1 / n_packs, 1.0]
    assert four.epoch(3) == one.epoch(12)
    assert all(a < b for a, b in pairwise(four.epoch(step) for step in range(20)))


def test_the_order_of_a_seed_never_changes() -> None:
    """By its first values, as numpy's raw words gave them: a later numpy must not reorder a run that is resumed."""
    assert shuffled(8, 0, 0).tolist() == [3, 2, 1, 6, 0, 7, 4, 5]
    assert shuffled(8, 0, 1).tolist() == [7, 4, 5, 1, 6, 2, 0, 3]
    assert sorted(shuffled(1000, 3, 5).tolist()) == list(range(1000))


# Work split over processes and micro-batches.


@pytest.mark.parametrize(("world", "micro"), [(1, 1), (1, 4), (1, 8), (2, 1), (2, 4), (4, 2), (8, 1)])
def test_a_step_is_the_same_whatever_the_processes_and_micro_batches(world: int, micro: int) -> None:
    whole = feed(8)
    for step in (0, 5):
        (together,) = whole.batches(step, micro=8)
        parts = [batch for rank in range(world) for batch in feed(8).batches(step, rank=rank, world=world, micro=micro)]
        assert len(parts) == 8 // micro
        assert tuple(number for batch in parts for number in batch.samples) == whole.samples(step) == together.samples
        assert torch.equal(torch.cat([batch.tokens_T for batch in parts]), together.tokens_T)
        assert torch.equal(torch.cat([batch.diffusion.weights_S for batch in parts]), together.diffusion.weights_S)
        assert sum(batch.ar.count for batch in parts) == together.ar.count


def test_a_sample_s_noise_depends_on_seed_epoch_and_document_alone() -> None:
    narrow, wide = feed(1), feed(3, rows=512)
    of_wide = {number for step in range(4) for number in wide.samples(step)}
    for step in range(6):
        for number in set(narrow.samples(step)) & of_wide:
            epoch, index = divmod(number, N)
            expected = make_sample(numbered(index), NOISE, SPECIAL, f"7:{epoch}:{index}", number)
            assert expected in narrow._samples(step)


@pytest.mark.parametrize(
    ("streams", "world", "micro", "allowed"), [(4, 3, 1, "3"), (4, 2, 4, "8"), (6, 2, 2, "4"), (4, 1, 0, "0")]
)
def test_streams_that_cannot_be_shared_out_are_refused(streams: int, world: int, micro: int, allowed: str) -> None:
    with pytest.raises(InvalidInput, match=f"streams is {streams}, allowed are multiples of {allowed}"):
        feed(streams).batches(0, world=world, micro=micro)


def test_a_rank_outside_the_world_is_refused() -> None:
    with pytest.raises(InvalidInput, match="rank is 2, allowed is 0 to 1"):
        feed().batches(0, rank=2, world=2)


# Packs.


@given(st.lists(st.integers(1, 50), min_size=1, max_size=200))
def test_packs_never_overflow_and_lose_nothing(sizes: list[int]) -> None:
    packs = packed_first_fit(sizes, 50).tolist()
    used: Counter[int] = Counter()
    for size, pack in zip(sizes, packs, strict=True):
        used[pack] += size
    assert sorted(used) == list(range(len(used)))
    assert max(used.values()) <= 50
    assert sum(used.values()) == sum(sizes)
    first_seen = sorted(range(len(used)), key=packs.index)
    assert first_seen == sorted(first_seen)  # named in the order they were opened


def test_packs_are_full_but_for_the_last_ones() -> None:
    rng = random.Random(0)
    sizes = [min(int(rng.lognormvariate(5, 0.8)) + 2, 1000) for _ in range(3000)]
    packs = packed_first_fit(sizes, 1000)
    assert sum(sizes) / (1000 * (int(packs.max()) + 1 - OPEN / 2)) > 0.97


def test_less_than_15_percent_of_the_rows_are_padding() -> None:
    corpus = ProceduralCorpus(600, lambda i: Document.text(tuple(range(10, 10 + 20 + i * 37 % 180))), "lengths")
    full = Feed(corpus, Noise(block_sizes=(16,)), SPECIAL, seed=0, rows=1024, streams=4)
    shares = [full.padding(step) for step in range(4)]
    assert max(shares) < 0.15
    assert sum(full.padding(step) for step in range(4)) > 0


def test_padding_is_what_the_samples_leave_over() -> None:
    small = feed(1)
    for step in range(3):
        used = sum(sample.span.n_rows for sample in small._samples(step))
        assert small.padding(step) == 1 - used / ROWS


def test_a_document_that_fits_no_stream_is_named() -> None:
    with pytest.raises(
        InvalidInput, match=r"document \d+ may take \d+ rows, a stream has 40: allow more rows or fewer"
    ):
        feed(rows=40)


@pytest.mark.parametrize(("name", "value"), [("seed", -1), ("rows", 1), ("streams", 0)])
def test_numbers_out_of_range_are_refused(name: str, value: int) -> None:
    options = {"seed": 0, "rows": ROWS, "streams": 1} | {name: value}
    with pytest.raises(InvalidInput, match=f"{name} is {value}, allowed is at least"):
        Feed(CORPUS, NOISE, SPECIAL, **options)


def test_no_documents_are_refused() -> None:
    with pytest.raises(InvalidInput, match="there is no document to train on"):
        Feed(ProceduralCorpus(0, numbered, ""), NOISE, SPECIAL, seed=0, rows=ROWS, streams=1)


def test_places_name_the_documents_of_a_step() -> None:
    one = feed(1)
    assert one.places(0) == tuple(f"document {number}" for number in one.samples(0))


# Documents that are too long.


@pytest.mark.parametrize("noise", [None, NOISE, Noise(block_sizes=(32,), infill_share=0.5)])
@pytest.mark.parametrize("rows", [64, 500])
def test_the_longest_text_fits_and_a_longer_one_does_not(noise: Noise | None, rows: int) -> None:
    n = longest_text(noise, rows)
    assert most_rows(n, n - 1, 1, noise) <= rows < most_rows(n + 1, n, 1, noise)


def test_streams_too_short_for_any_text_are_refused() -> None:
    with pytest.raises(InvalidInput, match="rows is 9, allowed is at least 10"):
        longest_text(NOISE, 9)


TALK = Document(tokens=tuple(range(10, 60)), answers=((10, 20), (30, 40), (45, 50)))


def test_long_texts_are_cut_to_what_fits_and_the_rest_is_left_out_with_its_place() -> None:
    documents = [Document.text(tuple(range(10, 310))), TALK, numbered(3)]
    whole = ProceduralCorpus(3, documents.__getitem__, "mixed")
    windows, bad = fitted(whole, NOISE, rows=90)
    assert windows.max_tokens == longest_text(NOISE, 90) == 42
    assert [str(row) for row in bad.first] == [
        "document 1: too long (50 tokens that may take 96 rows, allowed are 90 and 90)"
    ]
    Feed(windows, NOISE, SPECIAL, seed=0, rows=90, streams=1)
    learned = sum(int(targets) for _, targets, _ in windows.sizes())
    assert learned == 299 + numbered(3).n_targets
    with pytest.raises(InvalidInput, match="document 1: too long"):
        fitted(whole, NOISE, rows=90, strict=True)


def test_a_talk_may_be_longer_than_a_text_when_its_rows_fit() -> None:
    whole = ProceduralCorpus(1, lambda _: TALK, "talk")
    assert len(fitted(whole, NOISE, rows=96)[0]) == 1
    with pytest.raises(InvalidInput, match="no document fits into 49 tokens and 96 rows\n1 rows left out: 1 too long"):
        fitted(whole, NOISE, rows=96, max_tokens=49)


def test_windows_feed_like_any_corpus() -> None:
    whole = ProceduralCorpus(4, lambda i: Document.text(tuple(range(1000 * i + 10, 1000 * i + 210))), "long")
    windows = Windows(whole, 33)
    one = Feed(windows, NOISE, SPECIAL, seed=0, rows=96, streams=2)
    steps = [step for step in range(30) if one.epoch(step) < 1]
    labels = {label for step in steps for batch in one.batches(step) for label in batch.ar.labels_S.tolist()}
    assert labels >= {1000 * i + j for i in range(4) for j in range(11, 210)}


@pytest.mark.medium
def test_from_a_file_of_rows_to_labels_only_answers_are_learned(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": "ask"}, {"role": "assistant", "content": "say"}]},
        {"text": "abc" * 20},
        {"prompt": "1+1=", "completion": "2"},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tokenizer = byte_tokenizer()
    cache = tokenized([str(tmp_path / "*.jsonl")], Encoder(tokenizer, EOS), tmp_path / "cache")
    corpus, bad = fitted(cache, NOISE, rows=64)
    assert not bad.counts
    one = Feed(corpus, NOISE, SPECIAL, seed=0, rows=64, streams=1)
    steps = [step for step in range(20) if one.epoch(step) < 1]
    scored = [(batch.ar, batch.diffusion) for step in steps for batch in one.batches(step)]
    expected = Counter([*tokenizer.encode("say2" + ("abc" * 20)[1:]), tokenizer.special["<|im_end|>"], EOS, EOS])
    assert Counter(label for ar, _ in scored for label in ar.labels_S.tolist()) == expected
    assert sum(diffusion.count for _, diffusion in scored) == sum(expected.values())
