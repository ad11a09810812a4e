"""A likelihood is exact where it can be, named where it is a bound, and refused where it is neither."""

import math
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch.nn.functional as F
from torch import tensor

from tests.adapters import random_adapter
from tests.fakes import MASK, ScriptedModel, byte_tokenizer, tiny_model
from tests.texts import canvas_logits, causal_logits
from trimode.api import LLM
from trimode.errors import InvalidInput
from trimode.evaluation.likelihood import likelihood, reason_against_bounds
from trimode.models.merging import merge

pytestmark = pytest.mark.medium

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


def test_a_named_adapter_is_on_in_every_row(tmp_path: Path) -> None:
    base, adapter = llm(deepcopy(tiny_model(sharpness=0.1))), random_adapter(tiny_model().config, 1)
    adapter.save(tmp_path / "law", "base")
    base.load_adapter(tmp_path / "law")
    plain, adapted = likelihood(base, PAIRS, (1,)), likelihood(base, PAIRS, (1,), adapter="law")
    assert plain == likelihood(llm(), PAIRS, (1,))
    merge(base.model, adapter)
    merged = likelihood(base, PAIRS, (1,))
    for one, other in ((adapted.nll, merged.nll), (adapted.bounds[0], merged.bounds[0])):
        assert one is not None and other is not None
        assert one.nats == pytest.approx(other.nats, rel=1e-3)
    assert plain.nll is not None and merged.nll is not None
    assert plain.nll.nats != pytest.approx(merged.nll.nats, rel=1e-2)


def test_other_draws_move_a_bound_by_its_standard_error_and_the_same_seed_gives_it_again() -> None:
    first, again, other = (likelihood(llm(), PAIRS, (4,), draws=12, seed=seed).bounds[0] for seed in (1, 1, 2))
    assert first == again
    assert first.per_token != other.per_token
    assert first.standard_error is not None and other.standard_error is not None
    assert abs(first.per_token - other.per_token) < 4 * math.hypot(first.standard_error, other.standard_error)


def test_a_causal_checkpoint_has_its_nll_and_says_why_no_bound() -> None:
    found = likelihood(refusing(mask_token_id=None, block_size=None), PAIRS, (4,))
    assert found.nll is not None and found.bounds == ()
    assert found.refused == (reason_against_bounds(replace(llm().model.config, mask_token_id=None)),)
    assert "without a mask token" in found.refused[0]
    assert likelihood(refusing(mask_token_id=None, block_size=None), PAIRS, ()).refused == ()


def test_blocks_that_see_both_ways_have_neither() -> None:
    found = likelihood(refusing(commit_visibility="block"), PAIRS, (4,))
    assert (found.nll, found.bounds) == (None, ())
    assert "no AR NLL: in this nemotron_labs_diffusion checkpoint committed blocks see both ways" in found.refused[0]
    assert "no NELBO" in found.refused[1]


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
