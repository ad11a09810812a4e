"""Documents -> samples: a span and what its rows should predict. Pure; knows no model and no batch."""

import random
from dataclasses import dataclass

from trimode.numerics.noise import Noise, blocks, masked_slots
from trimode.spans import Canvas, Span
from trimode.training.documents import Document


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Row `row` of the sample should predict `label`."""

    row: int
    label: int
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A document as a span, with what its rows should predict. `index` is its global number, for messages."""

    span: Span
    ar: tuple[Target, ...]
    diffusion: tuple[Target, ...]
    n_diffusion: int  # all target positions, masked or not
    index: int = 0


def make_sample(
    document: Document, noise: Noise | None, mask_token_id: int, rng: random.Random, index: int = 0
) -> Sample:
    """The clean text as commits; with `noise`, one canvas per block of its targets as well.

    A block that reaches the end of the text keeps its full size, its tail masks unscored: that is what a decoder sees
    when a canvas hangs over the end of an answer.
    """
    tokens, n = document.tokens, len(document.tokens)
    ar = tuple(
        Target(row=i - 1, label=tokens[i], weight=1.0)
        for start, stop in document.answers for i in range(max(start, 1), stop)
    )  # fmt: skip
    canvases, diffusion, row = [], [], n
    if noise is not None:
        size = rng.choice(noise.block_sizes)
        for first, last in document.answers:
            for start, stop in blocks(first, last, size, rng):
                slots, weight = masked_slots(stop - start, noise, rng)
                shown = list(tokens[start:stop]) + [mask_token_id] * (size - (stop - start) if stop == last else 0)
                for slot in slots:
                    shown[slot] = mask_token_id
                    diffusion.append(Target(row=row + slot, label=tokens[start + slot], weight=weight))
                canvases.append(Canvas(after=start, tokens=tuple(shown)))
                row += len(shown)
    span = Span(commit=tokens, canvases=tuple(canvases), kind="prefill")
    n_diffusion = document.n_targets if noise is not None else 0
    return Sample(span=span, ar=ar, diffusion=tuple(diffusion), n_diffusion=n_diffusion, index=index)
