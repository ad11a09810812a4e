"""Prompt lookup is lossless, needs no mask, and its forwards follow from what the text repeats."""

import pytest

from tests.fakes import ScriptedModel, drain, lively_model
from trimode.api import completion
from trimode.decoding import build
from trimode.decoding.lookup import lookup
from trimode.engine.engine import Engine
from trimode.engine.request import Request
from trimode.numerics.sampling import Sampling

pytestmark = pytest.mark.medium

PERIOD = tuple(range(10, 30))


def written(model: object, prompt: tuple[int, ...], n: int, lookup_length: int) -> tuple[Request, list[str]]:
    """One request, and the kind of every forward in order."""
    engine = Engine(model)  # type: ignore[arg-type]
    decoder = build("prompt_lookup", engine.model.config, lookup_length=lookup_length)
    request = engine.submit(prompt, decoder, max_tokens=n)
    kinds = []
    while not engine.is_idle:
        kinds += [str(event.kind) for event in engine.step()]
    return request, kinds


def contrary(n: int) -> list[int]:
    """A text of two tokens in which whatever is looked up fails at once."""
    text = [5, 5, 6]
    while len(text) < n:
        text.append(6 if lookup(text, 1) == (5,) else 5)
    return text


@pytest.mark.parametrize("lookup_length", [1, 2, 4, 10, 20])
def test_where_everything_stood_before_a_forward_makes_all_guesses_and_a_token(lookup_length: int) -> None:
    """The prefill looks nothing up, and the last token is the verifier's own: alone it is a plain step."""
    model = ScriptedModel(lambda p: PERIOD[p % 20], lambda p: 4)
    for n in (1, 2, 3, 4, 5, 11, 12, 13, 22, 23, 24, 40):
        request, kinds = written(model, PERIOD + PERIOD[:2], n, lookup_length)
        n_verify, rest = divmod(n - 1, lookup_length + 1)
        n_verify, n_decode = (n_verify, rest) if rest < 2 else (n_verify + 1, 0)
        assert kinds == ["prefill", *["verify"] * n_verify, *["decode"] * n_decode]
        assert request.answer == tuple(PERIOD[(22 + i) % 20] for i in range(n))
        acceptance = completion(request).acceptance or ()
        assert bool(acceptance) == bool(n_verify)
        assert all(accepted == reached == verified for verified, reached, accepted in acceptance)


def test_where_nothing_stood_before_every_forward_is_a_plain_step() -> None:
    request, kinds = written(ScriptedModel(lambda p: 4 + p, lambda p: 4), (4, 5), 40, 10)
    assert kinds == ["prefill", *["decode"] * 39]
    assert completion(request).acceptance is None


@pytest.mark.parametrize("lookup_length", [1, 3, 10])
def test_lookups_that_all_fail_make_a_token_per_forward(lookup_length: int) -> None:
    text = contrary(70)
    request, kinds = written(ScriptedModel(lambda p: text[p], lambda p: 4), tuple(text[:10]), 60, lookup_length)
    assert kinds == ["prefill", *["verify"] * 58, "decode"]
    assert request.answer == tuple(text[10:])
    acceptance = completion(request).acceptance
    assert acceptance is not None
    assert all(accepted == 0 for _, _, accepted in acceptance)
    assert acceptance[0] == (58, 58, 0)
    assert all(reached == 0 for _, reached, _ in acceptance[1:])


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0, 1.5])
def test_it_writes_what_ar_writes_at_every_temperature_also_without_a_mask(temperature: float) -> None:
    gained = 0
    for seed, mask in ((0, 3), (1, 3), (2, None)):
        model = lively_model(seed, mask_token_id=mask)
        sampling = Sampling(temperature=temperature, seed=11)
        engine = Engine(model)
        for prompt in ([5], [1, 9, 30, 2, 41] * 3, [9, 9, 8] * 4):
            ar, *others = (
                engine.submit(prompt, decoder, max_tokens=40, sampling=sampling)
                for decoder in (
                    build("ar", model.config),
                    *(build("prompt_lookup", model.config, lookup_length=n) for n in (1, 3, 10)),
                )
            )
            drain(engine)
            assert {(request.answer, request.finish) for request in others} == {(ar.answer, ar.finish)}
            gained += sum(len(request.answer) - request.counts.forwards.total() for request in others)
    assert gained > 0


@pytest.mark.parametrize("max_rows", [1, 2, 3, 6])
def test_few_rows_shorten_what_is_looked_up_and_change_no_token(max_rows: int) -> None:
    model = ScriptedModel(lambda p: PERIOD[p % 20], lambda p: 4)
    whole, _ = written(model, PERIOD + PERIOD[:2], 30, 10)
    model.calls.clear()
    engine = Engine(model, max_rows=max_rows)
    request = engine.submit(PERIOD + PERIOD[:2], build("prompt_lookup", model.config), max_tokens=30)
    drain(engine)
    assert request.answer == whole.answer
    assert max(model.calls) <= max_rows
    assert request.counts.forwards["verify"] + request.counts.forwards["decode"] == -(-29 // max_rows)
