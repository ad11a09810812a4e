"""The form of attention changes neither what a training step computes nor, once compiled, what is compiled."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from tests.fakes import MASK, tiny_config
from tests.texts import pack_in, some_samples
from trimode.models.checkpoint import empty
from trimode.models.transformer import Transformer, initialise
from trimode.numerics import packed
from trimode.numerics.noise import Noise
from trimode.numerics.packed import Attention
from trimode.numerics.visibility import Stream, Visibility
from trimode.spans import Canvas, Span
from trimode.training.batch import Batch
from trimode.training.objectives import Joint, value
from trimode.training.samples import Sample, Target

pytestmark = pytest.mark.medium

NOISE = Noise(block_sizes=(4, 8), all_masked_share=0.5)
GEOMETRIES = {"grouped queries": {}, "every head its own": {"n_kv_heads": 4}, "normed heads": {"qk_norm": True}}


def fresh(**changes: object) -> Transformer:
    """Random weights that learn."""
    model = empty(tiny_config(**changes), torch.float32, torch.device("cpu"))
    initialise(model, 0)
    return model


def odd_samples() -> list[Sample]:
    """Two views of the same text, a hole with the text behind it in the same canvas, a canvas before everything, and a
    text by itself; every canvas row is scored."""
    text = tuple(range(10, 34))
    views = tuple(
        Canvas(after=after, tokens=tuple(MASK if (slot + view) % 2 else 10 + after + slot for slot in range(4)))
        for view in range(2) for after in (3, 7, 11, 15, 19)
    )  # fmt: skip
    hole = Canvas(after=6, tokens=(MASK,) * 5 + text[11:])
    first = Canvas(after=0, tokens=(10, MASK, MASK))
    spans = [Span(commit=text, canvases=canvases, kind="prefill") for canvases in (views, (hole,), (first, hole), ())]
    return [scored(span, index) for index, span in enumerate(spans)]


def scored(span: Span, index: int) -> Sample:
    n = len(span.commit)
    ar = tuple(Target(row=row, label=token, weight=1.0) for row, token in enumerate(span.commit[1:]))
    rows = range(n, span.n_rows)
    diffusion = tuple(Target(row=row, label=10 + row % 40, weight=0.5 + row % 3) for row in rows)
    return Sample(span=span, ar=ar, diffusion=diffusion, n_diffusion=len(rows), index=index)


def step(model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits of all rows, and the gradient of the joint loss by every parameter."""
    model = copy.deepcopy(model)
    joint = Joint()
    value(joint.sums(model, batch), joint.counts(batch), joint.weights).backward()
    grads = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    assert len(grads) == len(list(model.parameters()))
    with torch.no_grad():
        return model.logits(model(batch.tokens_T, batch.positions_T, batch.visibility)), grads


@pytest.mark.parametrize("chunk", [1, 8, 256])
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("seed", range(3))
def test_logits_and_gradients_of_the_split_path_are_those_of_the_dense_mask(
    seed: int, geometry: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "CHUNK", chunk)
    model = fresh(**GEOMETRIES[geometry])
    samples = [*some_samples(NOISE, seed), *odd_samples()]
    dense, split = (step(model, pack_in(2, samples, attention=form)) for form in ("dense", "split"))
    torch.testing.assert_close(split, dense, rtol=1e-5, atol=1e-5)


@dataclass(frozen=True)
class Noted:
    """A visibility that writes down in which dtypes it was asked for."""

    given: Visibility
    asked: list[torch.dtype]

    @property
    def draft_rows(self) -> tuple[int, ...]:
        return self.given.draft_rows

    def streams(self, dtype: torch.dtype, device: torch.device) -> tuple[Stream, ...]:
        self.asked.append(dtype)
        return self.given.streams(dtype, device)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_under_autocast_masks_queries_and_keys_are_cast_once(geometry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What attention is given is bfloat16 already, so that it casts nothing per layer."""
    given: set[torch.dtype] = set()
    plain = torch.nn.functional.scaled_dot_product_attention

    def listening(*tensors: Tensor, attn_mask: Tensor | None, **options: bool) -> Tensor:
        given.update(x.dtype for x in (*tensors, attn_mask) if x is not None)
        return plain(*tensors, attn_mask=attn_mask, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", listening)
    batch, asked = pack_in(2, some_samples(NOISE)), []
    with torch.autocast("cpu", torch.bfloat16):
        hidden = fresh(**GEOMETRIES[geometry])(batch.tokens_T, batch.positions_T, Noted(batch.visibility, asked))
    assert asked == [torch.bfloat16]
    assert given == {torch.bfloat16}
    assert hidden.dtype == torch.float32


def batches(attention: Attention) -> Iterator[Batch]:
    """Of the same number of rows, each with other lengths of documents and other canvases."""
    for seed in range(4):
        samples: Sequence[Sample] = some_samples(NOISE, seed)[seed % 2 :]
        used = max(sum(sample.span.n_rows for sample in samples[i::2]) for i in range(2))
        yield pack_in(2, samples, padding=128 - used, attention=attention)


@pytest.mark.medium
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # the compiler looks at it
def test_a_compiled_model_is_the_model_and_is_not_compiled_again_for_another_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packed, "CHUNK", 8)
    model = fresh()
    compiled = copy.deepcopy(model)
    compiled.compile(backend="aot_eager")
    first, *others = batches("split")
    torch.testing.assert_close(step(compiled, first), step(model, first), rtol=1e-5, atol=1e-5)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for batch in others:
            torch.testing.assert_close(step(compiled, batch), step(model, batch), rtol=1e-5, atol=1e-5)
