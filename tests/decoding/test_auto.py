"""`auto` writes the text of `ar`, drafts where rows are free, and takes exactly its steps where no draft could pay."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.fakes import Watched, alone, decoder, drain, lively_model, tiny_config
from trimode.api import completion
from trimode.cost import FLAT, NATIVE_FLOAT32, TORCH_CPU, CostModel
from trimode.decoding import build
from trimode.decoding.placement import can_pay
from trimode.engine.engine import Engine
from trimode.engine.request import Request
from trimode.errors import InvalidInput

STEEP = CostModel(widths=(1, 2), costs=(1.0, 2.0))  # every row costs the same, whoever shares the forward
PROMPTS = [[5 + n, 6, 5 + n, 6, 7] for n in range(6)]


def together(model: Any, cost: CostModel, prompts: Sequence[list[int]], mode: str = "auto") -> list[Request]:
    engine = Engine(model)
    requests = [engine.submit(prompt, build(mode, model.config, cost), max_tokens=25) for prompt in prompts]
    drain(engine)
    return requests


@pytest.mark.parametrize("cost", [FLAT, NATIVE_FLOAT32, TORCH_CPU, STEEP])
@pytest.mark.parametrize("n", [1, 3, 6])
def test_the_text_is_that_of_ar_at_any_load(cost: CostModel, n: int) -> None:
    model = lively_model(1)
    for request, prompt in zip(together(model, cost, PROMPTS[:n]), PROMPTS, strict=False):
        assert request.answer == alone(model, "ar", prompt, max_tokens=25).answer


def test_where_no_draft_could_pay_the_forwards_are_those_of_ar() -> None:
    model = lively_model(1)
    rows: list[int] = []
    watched = Watched(model, lambda positions, visibility: rows.append(len(visibility.draft_rows)))
    for request in together(watched, STEEP, PROMPTS):
        told = completion(request)
        assert told.forwards.keys() <= {"prefill", "decode", "total"} and told.tokens_per_forward == 1
    assert not any(rows)


def test_where_rows_are_free_it_needs_fewer_forwards_than_ar() -> None:
    model = lively_model(1)
    free = CostModel(widths=(1, 4096), costs=(1.0, 1.001))
    total = [sum(r.counts.forwards.total() for r in together(model, free, PROMPTS, mode)) for mode in ("auto", "ar")]
    assert total[0] < total[1]


def test_a_decoder_follows_the_load_from_forward_to_forward() -> None:
    model = lively_model(1)
    engine = Engine(model, max_running=3)
    first = engine.submit([5, 6], decoder("auto", model.config), max_tokens=40)
    loads = []
    for n in range(60):
        if n in (2, 4, 6, 8):
            engine.submit([7 + n, 6], decoder("ar", model.config), max_tokens=10)
        engine.step()
        loads.append(first.decoder.load)  # type: ignore[attr-defined]
        if first.finish:
            break
    assert loads[:2] == [1, 1] and max(loads) == 3  # no more than may run
    assert loads[-1] < 3 or first.finish


def test_what_is_shared_costs_its_share() -> None:
    for cost in (FLAT, NATIVE_FLOAT32, TORCH_CPU):
        for n in (1, 2, 7, 64):
            for rows, drafts in ((1, 0), (3, 0), (9, 16)):
                assert cost.shared(n)(rows, drafts) == pytest.approx(cost(n * rows, n * drafts) / n)


def test_what_could_pay_is_told_by_the_best_that_could_happen() -> None:
    assert can_pay(FLAT, 8) and can_pay(NATIVE_FLOAT32, 8) and not can_pay(STEEP, 64)
    assert not can_pay(NATIVE_FLOAT32.shared(16), 32) and can_pay(FLAT.shared(16), 32)


def test_a_causal_checkpoint_has_nothing_to_choose_and_one_of_blocks_no_such_mode() -> None:
    plain = replace(tiny_config(), mask_token_id=None)
    span = build("auto", plain).plan(build("auto", plain).start([5, 6], 9), [5, 6], 0, 99)
    assert span.commit == (5, 6) and span.canvases == ()
    with pytest.raises(InvalidInput, match="its one mode is 'diffusion'"):
        build("auto", tiny_config(commit_visibility="block"))
    with pytest.raises(InvalidInput, match="draft_length is not a parameter of mode 'auto'"):
        build("auto", tiny_config(), draft_length=4)
