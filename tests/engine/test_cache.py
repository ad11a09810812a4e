"""After any forward a request's cache is that of a fresh causal prefill over its committed tokens."""

import pytest
import torch

from tests.fakes import VARIANTS, decoder, drain, lively_model, written
from trimode.cache import Cache, KVPool
from trimode.engine.engine import Engine
from trimode.engine.runner import Job, run
from trimode.models.transformer import Transformer
from trimode.numerics.sampling import Sampling
from trimode.spans import Span

pytestmark = pytest.mark.medium


def prefilled(model: Transformer, tokens: list[int]) -> Cache[KVPool]:
    cache = model.new_cache(len(tokens))
    run(model, [Job(span=Span(commit=tuple(tokens), kind="prefill"), cache=cache, sampling=Sampling())])
    cache.keep(len(tokens))
    return cache


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("temperature", "max_rows"), [(0.0, 2048), (5.0, 10)])
def test_the_cache_equals_a_fresh_prefill_after_every_forward(variant: str, temperature: float, max_rows: int) -> None:
    model = lively_model(2)
    engine = Engine(model, max_rows=max_rows)
    sampling = Sampling(temperature=temperature, seed=1)
    requests = [
        engine.submit(prompt, decoder(variant, model.config), max_tokens=30, sampling=sampling)
        for prompt in ([5], list(range(10, 33)))
    ]
    looks = []
    while not engine.is_idle:
        engine.step()
        for request in requests:
            if request.finish is None:
                length = request.cache.length
                assert length <= len(request.tokens)
                looks.append((request, *written(request.cache, length)))
    fresh = {request.id: prefilled(model, request.tokens) for request in requests}
    assert len(looks) > 10
    for request, k, v in looks:
        torch.testing.assert_close((k, v), written(fresh[request.id], k.shape[2]), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_only_the_last_token_or_the_last_block_is_not_in_the_cache(variant: str) -> None:
    """`ar` and speculation always feed one token anew; diffusion a block that was closed, none while one is open, and
    one token more where causal rows are mixed in."""
    model = lively_model(0)
    engine = Engine(model)
    request = engine.submit([5, 6, 7], decoder(variant, model.config), max_tokens=40)
    while not engine.is_idle:
        engine.step()
        missing = len(request.tokens) - request.cache.length
        if request.finish is None:
            block = getattr(request.decoder, "block_size", 1) if request.decoder.mode == "diffusion" else 1
            again = getattr(request.decoder, "ar_weight", 0.0) > 0
            assert again <= missing <= block + again
            assert missing == 1 or request.decoder.mode == "diffusion"


def test_a_cache_grows_with_its_text() -> None:
    """Room for 1024 positions at first; a longer text gets more pages and loses nothing."""
    model = lively_model(0, eos_token_ids=(), context_length=2000)
    engine = Engine(model)
    prompt = [4 + i % 50 for i in range(1015)]
    requests = [engine.submit(prompt, decoder(v, model.config), max_tokens=20) for v in ("ar", "draft of 8")]
    capacities = set()
    while not engine.is_idle:
        capacities.add(requests[0].cache.capacity)
        engine.step()
    assert capacities == {0, 1024, 1040}  # none before it runs
    assert requests[0].answer == requests[1].answer
    short = Engine(model)
    whole = short.submit([*prompt, *requests[0].answer[:15]], decoder("ar", model.config), max_tokens=5)
    drain(short)
    assert whole.answer == requests[0].answer[15:]
