"""The promises of the engine on the native forward: alone or together, drafted or not, in bfloat16 as in float32."""

import random

import pytest
import torch

from tests.fakes import VARIANTS, alone, decoder, drain
from tests.native.models import DTYPES, native, reference
from trimode.engine.engine import Engine
from trimode.numerics.sampling import Sampling

pytestmark = pytest.mark.medium

PROMPTS = [[5], [7, 8, 9], list(range(4, 21)), [1, *range(25, 60)] * 2]
SPECULATIVE = [name for name, (mode, _) in VARIANTS.items() if mode in ("self_speculation", "prompt_lookup")]
SHAPE = "head 16, pairs"
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "bfloat16"])


@every_dtype
@pytest.mark.parametrize("variant", SPECULATIVE)
def test_speculation_writes_the_text_of_ar(variant: str, dtype: torch.dtype) -> None:
    model = native(SHAPE, dtype)
    for temperature in (0.0, 1.2):
        wanted = dict(max_tokens=30, sampling=Sampling(temperature=temperature, seed=9))
        for prompt in PROMPTS[1:]:
            assert alone(model, variant, prompt, **wanted).answer == alone(model, "ar", prompt, **wanted).answer


@every_dtype
def test_together_each_gets_what_it_gets_alone(dtype: torch.dtype) -> None:
    model, order = native(SHAPE, dtype), random.Random(3)
    wanted = [
        (variant, order.choice(PROMPTS), dict(max_tokens=20, sampling=Sampling(temperature=heat, seed=i)))
        for i, variant in enumerate(VARIANTS)
        for heat in (0.0, order.choice((0.0, 1.5)))
    ]
    engine = Engine(model, max_rows=90)
    requests = [
        engine.submit(prompt, decoder(variant, model.config), **submitted) for variant, prompt, submitted in wanted
    ]
    drain(engine)
    for request, (variant, prompt, submitted) in zip(requests, wanted, strict=True):
        assert request.answer == alone(model, variant, prompt, **submitted).answer


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_text_is_that_of_the_torch_model(variant: str) -> None:
    """In float32, where near ties are rare; drafts of 8 bits may be other guesses, the text is the same."""
    for prompt in PROMPTS:
        ours, theirs = (alone(m, variant, prompt, max_tokens=30) for m in (native(SHAPE), reference(SHAPE)))
        assert (ours.answer, ours.finish) == (theirs.answer, theirs.finish)


@pytest.mark.parametrize("variant", ["ar", "diffusion", "self_speculation"])
@pytest.mark.parametrize("max_rows", [3, 8])
def test_a_prompt_in_parts_gives_the_text_of_a_whole_one(variant: str, max_rows: int) -> None:
    model = native(SHAPE, torch.float32)
    engine = Engine(model, max_rows=max_rows)
    request = engine.submit(PROMPTS[-1], decoder(variant, model.config), max_tokens=12)
    drain(engine)
    assert request.answer == alone(model, variant, PROMPTS[-1], max_tokens=12).answer
