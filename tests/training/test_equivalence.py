"""What training sees is what inference sees (spec T1 and T2): packed with other texts, the same logits in fp32."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.fakes import MASK, tiny_config, tiny_model
from tests.texts import CLEAN, causal_logits, first_rows, pack_in, some_samples
from trimode.cache import Cache, KVPool
from trimode.config import Rope
from trimode.engine.runner import Job, run
from trimode.models.checkpoint import empty
from trimode.models.transformer import Transformer, initialise
from trimode.numerics import packed
from trimode.numerics.noise import Noise
from trimode.numerics.packed import Attention
from trimode.numerics.sampling import Sampling
from trimode.spans import Canvas, Picks, Span
from trimode.training.samples import Sample

NOISE = Noise(block_sizes=(4, 8), infill_share=0.3, views=2)
GREEDY = Sampling()
STREAMS = 2
# Chunks of 8 rows, so that small texts are split as long ones are; of 256, they are merged.
FORMS: dict[str, tuple[Attention, int]] = {"dense": ("dense", 256), "split": ("split", 8), "merged": ("split", 256)}


@pytest.fixture(params=FORMS)
def attention(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Attention:
    """Every test that asks for it holds for all forms of the rule."""
    form, chunk = FORMS[request.param]
    monkeypatch.setattr(packed, "CHUNK", chunk)
    return form


class Listener:
    """A model that remembers the logits it was last asked for."""

    def __init__(self, model: Transformer) -> None:
        self.model = model
        self.heard_SV = torch.empty(0)

    def __call__(self, *fed: Any) -> Tensor:
        return self.model(*fed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def logits(self, hidden_SD: Tensor) -> Tensor:
        self.heard_SV = self.model.logits(hidden_SD)
        return self.heard_SV


@lru_cache
def model_named(name: str) -> Transformer:
    """The tiny model, or one whose positions are stretched and whose query scale changes within the text."""
    if name == "plain":
        return tiny_model(sharpness=0.2)
    rope = Rope(theta=10000.0, kind="yarn", factor=4.0, original_context=4, query_beta=0.3)
    model = empty(tiny_config(rope=rope), torch.float32, torch.device("cpu"))
    initialise(model, 1)
    with torch.no_grad():
        model.embedding.mul_(50)
        model.head.mul_(10)
    return model.eval().requires_grad_(False)


def trained_logits(model: Transformer, samples: Sequence[Sample], attention: Attention) -> list[Tensor]:
    """The logits of all rows of every sample, from one packed forward of all of them and padding."""
    batch = pack_in(STREAMS, samples, attention=attention)
    logits = model.logits(model(batch.tokens_T, batch.positions_T, batch.visibility))
    starts = first_rows(STREAMS, samples, batch)
    return [logits[start : start + sample.span.n_rows] for start, sample in zip(starts, samples, strict=True)]


def cached(model: Transformer | Listener, tokens: Sequence[int]) -> Cache[KVPool]:
    """The causal cache of a text, written by the engine's runner."""
    cache = model.new_cache(len(tokens))
    if tokens:
        run(model, [Job(span=Span(commit=tuple(tokens), kind="prefill"), cache=cache, sampling=GREEDY)])
    cache.keep(len(tokens))
    return cache


def look(model: Transformer, commit: Sequence[int], span: Span) -> tuple[Tensor, Picks]:
    """What the runner reads when it feeds `span` behind the committed text."""
    listener = Listener(model)
    (picks,) = run(listener, [Job(span=span, cache=cached(listener, commit), sampling=GREEDY)])
    return listener.heard_SV, picks


@pytest.mark.parametrize("name", ["plain", "stretched"])
@pytest.mark.parametrize("seed", range(3))
def test_the_clean_half_of_training_is_a_plain_causal_model(name: str, seed: int, attention: Attention) -> None:
    model, samples = model_named(name), some_samples(NOISE, seed)
    for sample, logits in zip(samples, trained_logits(model, samples, attention), strict=True):
        commit = sample.span.commit
        torch.testing.assert_close(logits[: len(commit)], causal_logits(model, commit), rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ["plain", "stretched"])
@pytest.mark.parametrize("seed", range(3))
def test_a_training_canvas_is_what_a_decoder_sees_after_the_text_before_it(
    name: str, seed: int, attention: Attention
) -> None:
    model, samples, n_canvases = model_named(name), some_samples(NOISE, seed), 0
    for sample, logits in zip(samples, trained_logits(model, samples, attention), strict=True):
        row = len(sample.span.commit)
        for canvas in sample.span.canvases:
            width = len(canvas.tokens)
            denoise = Canvas(after=0, tokens=canvas.tokens, read=tuple(range(width)))
            span = Span(commit=(), canvases=(denoise,), kind="denoise")
            heard, picks = look(model, sample.span.commit[: canvas.after], span)
            torch.testing.assert_close(logits[row : row + width], heard, rtol=0, atol=2e-5)
            shares = logits[row : row + width].softmax(-1)
            shares_of_picks = shares[torch.arange(width), torch.from_numpy(picks.canvases[0].token_S)]
            np.testing.assert_allclose(picks.canvases[0].confidence_S, shares_of_picks, atol=1e-5)
            row += width
            n_canvases += 1
    assert n_canvases > 5


def test_a_training_canvas_is_also_the_first_look_that_rides_with_a_commit(attention: Attention) -> None:
    model = tiny_model(sharpness=0.2)
    samples = some_samples(NOISE)
    for sample, logits in zip(samples, trained_logits(model, samples, attention), strict=True):
        row = len(sample.span.commit)
        for canvas in sample.span.canvases:
            width, past = len(canvas.tokens), canvas.after // 2
            new = sample.span.commit[past : canvas.after]
            read = Canvas(after=len(new), tokens=canvas.tokens, read=tuple(range(width)))
            span = Span(commit=new, canvases=(read,), kind="denoise")
            heard, _ = look(model, sample.span.commit[:past], span)
            torch.testing.assert_close(logits[row : row + width], heard, rtol=0, atol=2e-5)
            row += width


def test_canvases_after_every_prefix_are_the_same_as_one_at_a_time() -> None:
    """A quadratic step, behind a cache: what training could have shown for any of its prefixes."""
    model, text, past = tiny_model(sharpness=0.2), tuple(CLEAN[5:12]), 3
    shown, slots = (MASK, 20, MASK), (0, 1, 2)
    new = text[past:]
    canvases = tuple(Canvas(after=i, tokens=shown, read=slots) for i in range(len(new) + 1))
    together, _ = look(model, text[:past], Span(commit=new, canvases=canvases, kind="verify"))
    for i, logits in enumerate(together.split(len(shown))):
        span = Span(commit=(), canvases=(Canvas(after=0, tokens=shown, read=slots),), kind="denoise")
        alone, _ = look(model, text[: past + i], span)
        torch.testing.assert_close(logits, alone, rtol=0, atol=2e-5)
