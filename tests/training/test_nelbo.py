"""The estimate is what its definition says: exact at block size 1, the enumerated expectation at others."""

import math
import random
from dataclasses import replace
from functools import cache
from itertools import product
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.chance import every_outcome
from tests.fakes import MASK, tiny_model
from tests.markov import LENGTH, STATES, markov_joint, probability, surprise
from tests.texts import CLEAN, SPECIAL, canvas_logits, causal_logits, some_documents
from trimode.errors import InvalidInput
from trimode.models.transformer import Transformer
from trimode.numerics.noise import Noise
from trimode.numerics.packed import Packed
from trimode.numerics.visibility import visible
from trimode.spans import layout
from trimode.training import nelbo as module
from trimode.training.documents import Document
from trimode.training.nelbo import Estimate, exact_nll, nelbo
from trimode.training.samples import Sample, draw_sample, make_sample

pytestmark = pytest.mark.medium


def model() -> Transformer:
    return tiny_model(sharpness=0.1)


def estimate(documents: list[Document], block_size: int, draws: int, seed: int = 0) -> Estimate:
    return nelbo(model(), documents, block_size, draws=draws, seed=seed, special=SPECIAL)


def by_hand(sample: Sample) -> float:
    """The weighted loss of a sample, every canvas in a forward of its own."""
    row, total = len(sample.span.commit), 0.0
    for canvas in sample.span.canvases:
        log_p = canvas_logits(model(), sample.span.commit[: canvas.after], canvas.tokens).log_softmax(-1)
        for target in sample.diffusion:
            if row <= target.row < row + len(canvas.tokens):
                total -= target.weight * log_p[target.row - row, target.label].item()
        row += len(canvas.tokens)
    return total


def test_at_block_size_one_it_is_the_exact_likelihood_of_the_canvas_rows() -> None:
    total = 0.0
    for document in some_documents():
        for start, stop in document.answers:
            for i in range(start, stop):
                logits = canvas_logits(model(), document.tokens[:i], [MASK])
                total += F.cross_entropy(logits[0], torch.tensor(document.tokens[i])).item()
    n_targets = sum(document.n_targets for document in some_documents())
    for draws in (1, 3):
        found = estimate(some_documents(), 1, draws)
        assert found.per_token == pytest.approx(total / n_targets, rel=1e-6)
        assert found.standard_error == 0.0
        assert (found.n_tokens, found.draws, found.block_size) == (n_targets, draws, 1)
    assert estimate(some_documents(), 1, 1, seed=1).per_token == estimate(some_documents(), 1, 1).per_token


def test_the_causal_rows_have_their_exact_likelihood() -> None:
    total, n = 0.0, 0
    for document in some_documents():
        log_p = causal_logits(model(), document.tokens).log_softmax(-1)
        for start, stop in document.answers:
            for i in range(max(start, 1), stop):
                total -= log_p[i - 1, document.tokens[i]].item()
                n += 1
    found = exact_nll(model(), some_documents())
    assert found.per_token == pytest.approx(total / n, rel=1e-6)
    assert (found.standard_error, found.n_tokens, found.block_size) == (0.0, n, None)


def test_every_draw_of_every_document_has_noise_of_its_own_without_emphasis() -> None:
    documents, noise, totals = some_documents()[:3], Noise(block_sizes=(4,), all_masked_share=0.0), []
    for draw in range(2):
        keys = [f"5:{draw}:{i}" for i in range(3)]
        samples = [make_sample(d, noise, SPECIAL, key) for d, key in zip(documents, keys, strict=True)]
        totals.append(sum(by_hand(sample) for sample in samples))
    found = estimate(documents, 4, draws=2, seed=5)
    assert found.per_token == pytest.approx(sum(totals) / 2 / found.n_tokens, rel=1e-6)


@pytest.mark.parametrize("size", [2, 3])
def test_draws_average_to_the_enumerated_expectation(size: int) -> None:
    document = Document.text(tuple(CLEAN[5:9]))
    noise = Noise(block_sizes=(size,), all_masked_share=0.0)
    outcomes = every_outcome(lambda rng: draw_sample(document, noise, SPECIAL, rng))
    expected = sum(float(chance) * by_hand(sample) for chance, sample in outcomes) / 3
    found = estimate([document], size, draws=400)
    assert found.standard_error is not None
    assert 0 < found.standard_error < 0.05
    assert abs(found.per_token - expected) < 4 * found.standard_error


def test_the_standard_error_is_how_far_other_draws_move_the_estimate() -> None:
    documents = some_documents()[:3]
    found = [estimate(documents, 4, draws=8, seed=seed) for seed in range(60)]
    spread = torch.tensor([each.per_token for each in found]).std().item()
    claimed = math.sqrt(sum(each.standard_error**2 for each in found if each.standard_error is not None) / len(found))
    assert claimed == pytest.approx(spread, rel=0.4)  # four standard deviations of a spread of 60


def test_the_document_error_is_that_of_a_ratio_of_sums() -> None:
    documents = some_documents()[:3]
    each = [exact_nll(model(), [document]) for document in documents]
    whole = exact_nll(model(), documents)
    residues = [(one.per_token - whole.per_token) * one.n_tokens for one in each]
    expected = math.sqrt(sum(r**2 for r in residues) * 3 / 2) / whole.n_tokens
    assert whole.document_error == pytest.approx(expected, rel=1e-4)
    assert each[0].document_error is None


class Ideal:
    """Knows the chain: every row names its position as well as what it sees allows. Token STATES is the mask."""

    device = torch.device("cpu")

    def __call__(self, tokens_T: Tensor, positions_T: Tensor, visibility: Packed) -> Tensor:
        hidden_TD = torch.zeros(len(tokens_T), STATES + 1)
        for index, pack in enumerate(visibility.packs):
            sees, spelled = visible(pack), layout(pack[0])  # one document each
            for row, offset in enumerate(spelled.offsets):
                named = offset + (spelled.stops[row] == 0)
                seen = [k for k in sees[row].nonzero()[:, 0].tolist() if spelled.tokens[k] < STATES]
                known = frozenset((spelled.offsets[k], spelled.tokens[k]) for k in seen)
                if named < LENGTH:
                    hidden_TD[index * visibility.rows + row] = torch.tensor(log_p(named, known))
        return hidden_TD

    def logits(self, hidden_SD: Tensor) -> Tensor:
        return hidden_SD


@cache
def log_p(named: int, known: frozenset[tuple[int, int]]) -> list[float]:
    x = [dict(known).get(i, 0) for i in range(LENGTH)]
    options = [tuple([*x[:named], state, *x[named + 1 :]]) for state in range(STATES)]
    places = {place for place, _ in known}
    chances = [probability(markov_joint(0), option, places | {named}) for option in options]
    return [*(math.log(chance / sum(chances)) for chance in chances), -1e9]


@pytest.mark.parametrize("size", range(1, LENGTH + 1))
def test_of_a_known_chain_the_estimate_is_the_exact_likelihood_at_every_block_size(size: int) -> None:
    every = list(product(range(STATES), repeat=LENGTH))
    texts = random.Random(0).choices(every, markov_joint(0).flatten().tolist(), k=4)
    documents = [Document.text(text) for text in texts]
    exact = sum(surprise(markov_joint(0), x, set(range(1, LENGTH)), {0}) for x in texts) / (4 * (LENGTH - 1))
    model, special = cast(Transformer, Ideal()), replace(SPECIAL, mask_token_id=STATES)
    assert exact_nll(model, documents).per_token == pytest.approx(exact, rel=1e-5)
    found = nelbo(model, documents, size, draws=1 if size == 1 else 100, seed=0, special=special)
    if size == 1:
        assert (found.per_token, found.standard_error) == (pytest.approx(exact, rel=1e-5), 0.0)
    else:
        assert found.standard_error is not None
        assert 0 < found.standard_error < 0.05
        assert abs(found.per_token - exact) < 4 * found.standard_error


def test_one_draw_says_nothing_of_its_error() -> None:
    assert estimate(some_documents(), 4, draws=1).standard_error is None


def test_the_estimate_does_not_depend_on_how_documents_share_forwards(monkeypatch: pytest.MonkeyPatch) -> None:
    together = estimate(some_documents(), 4, draws=2)
    monkeypatch.setattr(module, "ROWS", 1)
    alone = estimate(some_documents(), 4, draws=2)
    assert alone.per_token == pytest.approx(together.per_token, rel=1e-6)
    assert alone.standard_error == pytest.approx(together.standard_error, rel=1e-4)


def test_nothing_behind_a_hole_is_seen() -> None:
    hole = some_documents()[-1]
    assert hole.hole is not None
    start, stop = hole.hole
    cut = Document.text(hole.tokens[:stop], start)
    for size in (1, 4):
        assert estimate([hole], size, 2).per_token == pytest.approx(estimate([cut], size, 2).per_token, rel=1e-6)
    assert exact_nll(model(), [hole]).per_token == pytest.approx(exact_nll(model(), [cut]).per_token, rel=1e-6)


def test_no_draws_no_blocks_and_no_targets_are_refused() -> None:
    documents = some_documents()
    with pytest.raises(InvalidInput, match="draws is 0, allowed is at least 1"):
        estimate(documents, 4, draws=0)
    with pytest.raises(InvalidInput, match="block_sizes is \\(0,\\), allowed are whole numbers"):
        estimate(documents, 0, draws=1)
    with pytest.raises(InvalidInput, match="no document has a target to evaluate"):
        estimate([replace(documents[0], answers=())], 4, draws=1)
    with pytest.raises(InvalidInput, match="no document has a target to evaluate"):
        exact_nll(model(), [])
