"""A likelihood is exact where it can be, named where it is a bound, and refused where it is neither."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch.nn.functional as F
from torch import tensor

from tests.fakes import MASK, ScriptedModel, byte_tokenizer, tiny_model
from tests.texts import canvas_logits, causal_logits
from trimode.api import LLM
from trimode.errors import InvalidInput
from trimode.evaluation.likelihood import likelihood, reason_against_bounds, windows

PAIRS = [((5, 6, 7), (8, 9, 10, 11, 12, 13)), ((20, 21), (22, 23, 24)), ((30,), (31, 32))]
N = 11


def llm(model: Any = None) -> LLM:
    return LLM(tiny_model(sharpness=0.1) if model is None else model, byte_tokenizer())


def refusing(**changes: Any) -> LLM:
    """A model whose config differs; only what does not depend on it is computed."""
    model = ScriptedModel(lambda p: 7, lambda p: 7)
    model.config = replace(model.config, **changes)
    return llm(model)


def test_the_exact_value_is_that_of_the_answers_alone() -> None:
    found, model = likelihood(llm(), PAIRS, ()), tiny_model(sharpness=0.1)
    expected = []
    for prompt, answer in PAIRS:
        logits = causal_logits(model, [*prompt, *answer])[len(prompt) - 1 : -1]
        expected.append(F.cross_entropy(logits, tensor(answer), reduction="sum").item())
    assert found.nll is not None
    assert found.nll.nats == pytest.approx(expected, rel=1e-5)
    assert found.nll.per_token == pytest.approx(sum(expected) / N, rel=1e-5)
    assert (found.n_tokens, found.bounds, found.refused) == ((6, 3, 2), (), ())


def test_at_block_size_one_the_bound_is_the_exact_value_of_the_canvas_rows() -> None:
    (found,), model = likelihood(llm(), PAIRS, (1,), draws=5).bounds, tiny_model(sharpness=0.1)
    expected = []
    for prompt, answer in PAIRS:
        rows = [canvas_logits(model, [*prompt, *answer[:i]], [MASK])[0] for i in range(len(answer))]
        expected.append(sum(F.cross_entropy(row, tensor(a)).item() for row, a in zip(rows, answer, strict=True)))
    assert found.nats == pytest.approx(expected, rel=1e-5)
    assert (found.draws, found.standard_error, found.block_size) == (1, 0.0, 1)


def test_where_canvases_know_what_causal_rows_know_the_bound_at_block_size_one_is_the_nll() -> None:
    knowing = ScriptedModel(lambda p: 7, lambda p: 7, lambda p: 0.99)
    found = likelihood(llm(knowing), [((7, 7), (7, 8, 7, 7)), ((9,), (7, 7))], (1, 2, 4), draws=3)
    expected = -(5 * math.log(0.99) + math.log(0.01 / 60)) / 6
    assert found.nll is not None
    assert found.nll.per_token == pytest.approx(expected)
    assert found.bounds[0].per_token == pytest.approx(expected)
    assert [bound.block_size for bound in found.bounds] == [1, 2, 4]


def test_other_draws_move_a_bound_by_its_standard_error_and_the_same_seed_gives_it_again() -> None:
    first, again, other = (likelihood(llm(), PAIRS, (4,), draws=12, seed=seed).bounds[0] for seed in (1, 1, 2))
    assert first == again
    assert first.per_token != other.per_token
    assert first.standard_error is not None and other.standard_error is not None
    assert abs(first.per_token - other.per_token) < 4 * math.hypot(first.standard_error, other.standard_error)


def test_what_is_printed_names_block_size_draws_and_errors() -> None:
    exact, one, four = likelihood(llm(), PAIRS, (1, 4), draws=6).lines()
    assert exact.startswith("AR NLL ") and exact.endswith("(answers), exact (11 tokens of 3 answers)")
    assert "block size 1, exact for the canvas rows" in one
    assert "(draws) +- " in four and "block size 4, 6 draws (11 tokens of 3 answers)" in four


def test_a_causal_checkpoint_has_its_nll_and_says_why_no_bound() -> None:
    found = likelihood(refusing(mask_token_id=None, block_size=None), PAIRS, (4,))
    assert found.nll is not None and found.bounds == ()
    assert found.refused == (reason_against_bounds(replace(llm().model.config, mask_token_id=None)),)
    assert "without a mask token" in found.lines()[-1]
    assert likelihood(refusing(mask_token_id=None, block_size=None), PAIRS, ()).refused == ()


def test_blocks_that_see_both_ways_have_neither() -> None:
    found = likelihood(refusing(commit_visibility="block"), PAIRS, (4,))
    assert (found.nll, found.bounds) == (None, ())
    assert "no AR NLL: in this nemotron_labs_diffusion checkpoint committed blocks see both ways" in found.lines()[0]
    assert "no NELBO" in found.lines()[1]


@pytest.mark.parametrize(("length", "overlap"), [(4, 1), (5, 3), (10, 9), (40, 2)])
def test_windows_score_every_token_but_the_first_once(length: int, overlap: int) -> None:
    text = tuple(range(100, 117))
    pairs = windows(text, length, overlap)
    assert [token for _, answer in pairs for token in answer] == list(text[1:])
    assert all(len(prompt) + len(answer) <= length for prompt, answer in pairs)
    assert {len(prompt) for prompt, _ in pairs[1:]} <= {overlap}
    assert all(text[answer[0] - 100 - len(prompt) : answer[0] - 100] == prompt for prompt, answer in pairs)


def test_one_window_over_a_text_is_its_exact_value() -> None:
    tokens = (5, 9, 13, 17, 21, 25, 29)
    found = likelihood(llm(), windows(tokens, 20, 4), ()).nll
    assert found is not None
    logits = causal_logits(tiny_model(sharpness=0.1), tokens)[:-1]
    assert found.per_token == pytest.approx(F.cross_entropy(logits, tensor(tokens[1:])).item(), rel=1e-5)
    assert windows(tokens[:1], 20, 4) == []


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (((), (5,)), "pair 0 of the likelihood: 0 and 1 tokens"),
        (((5,), ()), "pair 0 of the likelihood: 1 and 0 tokens"),
        (((5,), (MASK,)), f"token {MASK}, allowed is 0 to 60 without the mask"),
        (((5,), (61,)), "token 61, allowed is 0 to 60"),
        (((5,), (6,) * 256), "257 tokens, the context holds 256"),
    ],
)
def test_pairs_that_no_model_can_read_are_refused(pair: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        likelihood(llm(), [pair], (1,))


def test_windows_without_anything_before_them_are_refused() -> None:
    with pytest.raises(InvalidInput, match="overlap is 0, allowed is 1 to 7"):
        windows((1, 2, 3), 8, 0)
