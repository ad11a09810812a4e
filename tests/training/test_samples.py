"""Samples say what they should, whatever the noise and the document, and are pure functions of their key."""

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.chance import every_outcome
from tests.fakes import EOS, MASK
from tests.markov import markov_joint, surprise
from tests.texts import MARKED, SPECIAL, documents, noises
from trimode.errors import InvalidInput
from trimode.numerics.noise import Noise
from trimode.numerics.visibility import visible
from trimode.spans import layout
from trimode.training.documents import Document
from trimode.training.samples import Sample, Target, check, draw_sample, make_sample, most_rows

pytestmark = pytest.mark.medium

PREFIX_ID, SUFFIX_ID, MIDDLE_ID = 90, 91, 92
KEYS = st.text(max_size=5)


def is_suffix_first(sample: Sample) -> bool:
    return sample.span.commit[:1] == (SUFFIX_ID,)


def written(document: Document, sample: Sample) -> Document:
    """The document as it was laid out: `document` itself, or its suffix-first layout, read off the sample."""
    if not is_suffix_first(sample):
        return document
    commit = sample.span.commit
    return Document(tokens=commit, answers=((commit.index(MIDDLE_ID) + 1, len(commit)),))


def rows_of(sample: Sample) -> dict[int, tuple[int, int]]:
    """row -> (canvas, position) of every canvas row."""
    row, found = len(sample.span.commit), {}
    for index, canvas in enumerate(sample.span.canvases):
        for slot in range(len(canvas.tokens)):
            found[row] = (index, canvas.after + slot)
            row += 1
    assert row == sample.span.n_rows
    return found


def positions(document: Document) -> list[int]:
    return [i for start, stop in document.answers for i in range(start, stop)]


@given(documents(), noises(), KEYS)
def test_canvases_show_masks_and_clean_text_and_name_the_masked(document: Document, noise: Noise, key: str) -> None:
    sample = make_sample(document, noise, MARKED, key)
    text, places, named = written(document, sample), rows_of(sample), []
    shown = [token for canvas in sample.span.canvases for token in canvas.tokens]
    for (row, (index, position)), token in zip(places.items(), shown, strict=True):
        after = sample.span.canvases[index].after
        end = next(stop for start, stop in text.answers if start <= after < stop)  # of the answer it belongs to
        if token != MASK:
            assert token == text.tokens[position]
        elif position < end:  # behind it a mask is a tail, which nobody scores
            named.append((row, text.tokens[position]))
    assert [(target.row, target.label) for target in sample.diffusion] == named


@given(documents(), noises(), KEYS)
def test_every_target_is_masked_at_most_once_per_view_and_the_prompt_never(
    document: Document, noise: Noise, key: str
) -> None:
    sample = make_sample(document, noise, MARKED, key)
    text, places = written(document, sample), rows_of(sample)
    masked = sorted(places[target.row][1] for target in sample.diffusion)
    targets = positions(text)
    assert len(masked) == len(set(masked))  # with two views the second masks what the first does not
    assert set(masked) <= set(targets)
    assert sample.n_diffusion == len(targets)
    if noise.views == 2 or noise.drafts or noise.all_masked_share == 1:
        assert masked == targets


@given(documents(), noises(), KEYS)
def test_the_block_at_the_end_of_an_answer_keeps_its_size(document: Document, noise: Noise, key: str) -> None:
    sample = make_sample(document, noise, MARKED, key)
    text = written(document, sample)
    if text.hole is not None:
        return
    for canvas in sample.span.canvases:
        start, stop = next(answer for answer in text.answers if answer[0] <= canvas.after < answer[1])
        if canvas.after + len(canvas.tokens) > stop:
            assert len(canvas.tokens) in noise.block_sizes
            assert set(canvas.tokens[stop - canvas.after :]) == {MASK}
        if canvas.after + len(canvas.tokens) < stop and canvas.after > start:
            assert len(canvas.tokens) in noise.block_sizes or noise.infill_share > 0


@given(documents(), st.none() | noises(), KEYS)
def test_every_target_is_the_next_token_of_a_commit_once(document: Document, noise: Noise | None, key: str) -> None:
    sample = make_sample(document, noise, MARKED, key)
    text = written(document, sample)
    expected = [(i - 1, text.tokens[i], 1.0) for i in positions(text) if i > 0]
    assert [(target.row, target.label, target.weight) for target in sample.ar] == expected
    assert sample.span.commit == text.tokens[: None if text.hole is None else text.hole[1]]
    if noise is None:
        assert (sample.span.canvases, sample.n_diffusion) == ((), 0)


@given(documents(longest=300), st.none() | noises(), KEYS)
def test_no_sample_has_more_rows_than_its_size_allows(document: Document, noise: Noise | None, key: str) -> None:
    n_answers = sum(start < stop for start, stop in document.answers)
    bound = most_rows(len(document.tokens), document.n_targets, n_answers, noise)
    assert make_sample(document, noise, MARKED, key).span.n_rows <= bound


def test_the_bound_on_rows_is_reached() -> None:
    """One token over a multiple of the block: a tail of all but one slot."""
    document, noise = Document.text(tuple(range(10, 27)), 8), Noise(block_sizes=(8,))
    most = max(make_sample(document, noise, SPECIAL, str(i)).span.n_rows for i in range(50))
    assert most == most_rows(17, 9, 1, noise) == 17 + 9 + 7


def test_the_bound_on_rows_is_reached_suffix_first() -> None:
    """The whole text as the middle, three markers and EOS more as commits, its first token and EOS more as targets."""
    document, noise = Document.text((10, 11, 12)), Noise(block_sizes=(1,), suffix_first_share=1.0)
    most = max(make_sample(document, noise, MARKED, str(i)).span.n_rows for i in range(100))
    assert most == most_rows(3, 2, 1, noise) == 3 + 4 + 2 + 2


@given(documents(), noises(), KEYS, KEYS)
def test_a_sample_is_a_pure_function_of_its_key(document: Document, noise: Noise, key: str, other: str) -> None:
    first = make_sample(document, noise, MARKED, key, 7)
    make_sample(document, noise, MARKED, other)
    assert make_sample(document, noise, MARKED, key, 7) == first
    assert first.index == 7


def test_seed_epoch_and_index_each_change_the_noise() -> None:
    document, noise = Document.text(tuple(range(10, 60))), Noise(block_sizes=(4,), all_masked_share=0.0)
    keys = [f"{seed}:{epoch}:{index}" for seed in range(3) for epoch in range(3) for index in range(3)]
    assert len({make_sample(document, noise, SPECIAL, key).diffusion for key in keys}) == 27


@pytest.mark.parametrize("options", [{}, {"views": 2}, {"infill_share": 0.5}, {"infill_share": 1.0, "views": 2}])
@pytest.mark.parametrize(
    "document",
    [
        Document.text((10, 11, 12, 13, 14, 15), 2),
        Document.text((10, 11, 12, 13, 14, 15, 16, 17, 18)),
        Document(tokens=tuple(range(10, 20)), answers=((2, 4), (6, 9))),
        Document(tokens=tuple(range(10, 20)), answers=((2, 7),), hole=(2, 7)),
    ],
    ids=["prompt", "text", "turns", "hole"],
)
def test_every_target_has_an_expected_weight_of_exactly_one(document: Document, options: dict[str, float]) -> None:
    """Over block sizes, phases, infill canvases, masks and views, cut tails included."""
    sizes = (3,) if document.is_text else (1, 3)
    noise = Noise(block_sizes=sizes, all_masked_share=0.25, **options)  # type: ignore[arg-type]
    expected: Counter[int] = Counter()
    for chance, sample in every_outcome(lambda rng: draw_sample(document, noise, SPECIAL, rng)):
        for target in sample.diffusion:
            expected[target.label] += float(chance) * target.weight  # type: ignore[assignment]
    assert expected == pytest.approx({document.tokens[i]: 1.0 for i in positions(document)}, rel=1e-9)


@pytest.mark.parametrize(("prompt", "aligned"), [(1, Fraction(0)), (3, Fraction(1, 2))])
def test_an_answer_starts_with_a_whole_block_half_of_the_time_and_a_text_at_any_phase(
    prompt: int, aligned: Fraction
) -> None:
    document, noise = Document.text(tuple(range(10, 20)), prompt), Noise(block_sizes=(4,), drafts=True)
    first: Counter[int] = Counter()
    for chance, sample in every_outcome(lambda rng: draw_sample(document, noise, SPECIAL, rng)):
        first[sample.span.canvases[1].after - prompt] += chance  # type: ignore[assignment]
    assert first == {width: (1 - aligned) / 4 + (aligned if width == 4 else 0) for width in range(1, 5)}


@given(documents(), KEYS)
def test_drafts_are_all_masked_at_weight_one_on_rows_that_change_no_answer(document: Document, key: str) -> None:
    sample = make_sample(document, Noise(block_sizes=(4, 7), drafts=True), SPECIAL, key)
    assert all(canvas.draft and set(canvas.tokens) == {MASK} for canvas in sample.span.canvases)
    assert [target.weight for target in sample.diffusion] == [1.0] * document.n_targets


def test_a_share_of_masks_holds_for_a_whole_document() -> None:
    document = Document.text(tuple(range(10, 90)))
    noise = Noise(block_sizes=(4,), scheme="sequence", all_masked_share=0.0)
    for i in range(20):
        sample = make_sample(document, noise, SPECIAL, str(i))
        (weight,) = {target.weight for target in sample.diffusion} or {1.0}
        assert len(sample.diffusion) / 79 == pytest.approx(1 / weight, abs=0.28)  # five standard deviations
        assert sample.n_diffusion == 79


# Holes: what stands behind them is seen in their canvas and nowhere else.


@pytest.mark.parametrize(("n_suffix", "fits"), [(5, 5), (300, 118)])
def test_a_hole_is_one_canvas_with_as_much_of_its_suffix_as_fits(n_suffix: int, fits: int) -> None:
    tokens = tuple(range(100, 120 + n_suffix))
    document = Document(tokens=tokens, answers=((10, 20),), hole=(10, 20))
    sample = make_sample(document, Noise(all_masked_share=1.0), SPECIAL, "")
    (canvas,) = sample.span.canvases
    assert sample.span.commit == tokens[:20]
    assert (canvas.after, canvas.tokens) == (10, (MASK,) * 10 + tokens[20 : 20 + fits])


def test_a_long_hole_is_written_in_blocks_until_the_rest_fits_with_its_suffix() -> None:
    document = Document(tokens=tuple(range(100, 500)), answers=((10, 310),), hole=(10, 310))
    sample = make_sample(document, Noise(block_sizes=(16,), all_masked_share=1.0), SPECIAL, "")
    *before, last = sample.span.canvases
    assert all(len(canvas.tokens) <= 16 and set(canvas.tokens) == {MASK} for canvas in before)
    assert (last.after, len(last.tokens)) == (310 - 96, 128)
    assert last.tokens == (MASK,) * 96 + document.tokens[310:342]


def test_two_views_of_a_hole_share_the_rows_its_suffix_would_take() -> None:
    document = Document(tokens=tuple(range(100, 140)), answers=((10, 20),), hole=(10, 20))
    sample = make_sample(document, Noise(all_masked_share=0.0, views=2), SPECIAL, "0")
    assert [len(canvas.tokens) for canvas in sample.span.canvases] == [20, 20]


def test_infill_canvases_start_where_a_block_would_and_end_in_clean_text() -> None:
    document = Document.text(tuple(range(100, 400)))
    noise = Noise(block_sizes=(8,), all_masked_share=1.0, infill_share=0.5)
    seen = 0
    for i in range(20):
        edge = 1
        for canvas in make_sample(document, noise, SPECIAL, str(i)).span.canvases:
            hole = canvas.tokens.index(next((t for t in canvas.tokens if t != MASK), MASK)) or len(canvas.tokens)
            assert canvas.after == edge
            edge += hole
            if hole < len(canvas.tokens):
                assert 8 <= len(canvas.tokens) <= 128
                assert canvas.tokens[hole:] == document.tokens[edge : edge + len(canvas.tokens) - hole]
                seen += 1
    assert seen > 20


# What an ideal predictor pays for a sample, seeing what its rows see.


def paid(joint: NDArray[np.float64], x: tuple[int, ...], sample: Sample, targets: Sequence[Target]) -> float:
    spelled, sees = layout(sample.span), visible([sample.span])
    total = 0.0
    for target in targets:
        is_canvas = spelled.stops[target.row] > 0
        named = spelled.offsets[target.row] + (0 if is_canvas else 1)
        rows = [row for row in sees[target.row].nonzero()[:, 0].tolist() if spelled.tokens[row] != MASK]
        total += target.weight * surprise(joint, x, {named}, {spelled.offsets[row] for row in rows})
    return total


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("answers", [((0, 5),), ((1, 5),), ((2, 3), (4, 5))])
def test_both_losses_of_an_ideal_predictor_are_the_exact_likelihood_of_the_targets(
    answers: tuple[tuple[int, int], ...], size: int, views: int
) -> None:
    joint, x = markov_joint(0), (0, 2, 1, 1, 0)
    document = Document(tokens=x, answers=answers)
    noise = Noise(block_sizes=(size,), all_masked_share=0.0, views=views)
    outcomes = list(every_outcome(lambda rng: draw_sample(document, noise, SPECIAL, rng)))
    bound = sum(float(chance) * paid(joint, x, sample, sample.diffusion) for chance, sample in outcomes)
    nll = sum(surprise(joint, x, set(range(a, b)), set(range(a))) for a, b in answers)
    assert bound == pytest.approx(nll, rel=1e-9)
    first = surprise(joint, x, {0}, set()) if answers[0][0] == 0 else 0.0  # has no causal row
    assert paid(joint, x, outcomes[0][1], outcomes[0][1].ar) + first == pytest.approx(nll, rel=1e-9)


@pytest.mark.parametrize(("views", "seen"), [(1, {0, 3, 4}), (2, {0, 3})])
def test_the_loss_of_a_hole_is_its_likelihood_between_both_sides(views: int, seen: set[int]) -> None:
    joint, x = markov_joint(0), (0, 2, 1, 1, 0)
    document = Document(tokens=x, answers=((1, 3),), hole=(1, 3))
    noise = Noise(block_sizes=(4,), all_masked_share=0.0, views=views)
    outcomes = every_outcome(lambda rng: draw_sample(document, noise, SPECIAL, rng))
    bound = sum(float(chance) * paid(joint, x, sample, sample.diffusion) for chance, sample in outcomes)
    assert bound == pytest.approx(surprise(joint, x, {1, 2}, seen), rel=1e-9)


# Suffix first.


def test_a_text_laid_out_suffix_first_is_the_same_text_in_another_order() -> None:
    document = Document.text((*range(100, 110), EOS))
    noise = Noise(block_sizes=(4,), suffix_first_share=1.0, all_masked_share=0.0)
    cuts: Counter[tuple[int, int]] = Counter()
    for i in range(400):
        sample = make_sample(document, noise, MARKED, str(i))
        commit = sample.span.commit
        prefix, middle = commit.index(PREFIX_ID), commit.index(MIDDLE_ID)
        assert (commit[0], commit[-1]) == (SUFFIX_ID, EOS)
        assert commit[prefix + 1 : middle] + commit[middle + 1 : -1] + commit[1:prefix] == tuple(range(100, 110))
        assert sample.n_diffusion == len(sample.ar) == len(commit) - middle - 1
        assert all(canvas.after > middle for canvas in sample.span.canvases)
        cuts[middle - prefix - 1, len(commit) - middle - 2] += 1
    assert len(cuts) == 55  # every middle that is not empty
    assert max(cuts.values()) < 25


def test_what_is_laid_out_suffix_first_is_written_in_blocks() -> None:
    noise = Noise(block_sizes=(4,), suffix_first_share=1.0, infill_share=1.0)
    for i in range(20):
        sample = make_sample(Document.text(tuple(range(100, 150))), noise, MARKED, str(i))
        assert all(len(canvas.tokens) <= 4 for canvas in sample.span.canvases)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_texts_are_laid_out_suffix_first_as_often_as_asked_and_documents_with_a_hole_half_of_the_time(
    share: float,
) -> None:
    noise = Noise(block_sizes=(1,), suffix_first_share=share, all_masked_share=1.0)
    text = Document.text((10, 11, 12))
    hole = Document(tokens=(10, 11, 12, EOS), answers=((1, 2),), hole=(1, 2))
    prompt = Document.text((10, 11, 12), 2)
    for document, expected in ((text, share), (hole, 0.5 if share else 0.0), (prompt, 0.0)):
        outcomes = list(every_outcome(lambda rng, d=document: draw_sample(d, noise, MARKED, rng)))  # type: ignore[misc]
        assert sum(chance for chance, sample in outcomes if is_suffix_first(sample)) == expected
    laid = {sample.span.commit for _, sample in every_outcome(lambda rng: draw_sample(hole, noise, MARKED, rng))}
    assert laid == {(10, 11), (SUFFIX_ID, 12, PREFIX_ID, 10, MIDDLE_ID, 11, EOS)} or share == 0.0


def test_suffix_first_needs_its_markers() -> None:
    noise = Noise(suffix_first_share=0.1)
    with pytest.raises(InvalidInput, match="suffix_first_share needs the ids of the prefix, suffix and middle markers"):
        check(noise, SPECIAL)
    with pytest.raises(InvalidInput, match="suffix_first_share needs"):
        make_sample(Document.text((10, 11)), noise, SPECIAL, "")
    check(noise, MARKED)
    check(None, SPECIAL)
