"""Random documents and their training samples, and the slow plain forwards that training is compared with."""

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from tests.fakes import MASK
from trimode.models.transformer import Transformer
from trimode.numerics.noise import Noise
from trimode.numerics.packed import Attention
from trimode.numerics.visibility import Masked, Stream
from trimode.training.batch import Batch, pack
from trimode.training.documents import Document
from trimode.training.samples import Sample, make_sample

CLEAN = range(4, 61)  # ids that are not special in the tiny configuration


def some_documents(seed: int = 0) -> list[Document]:
    """Without a prompt, with one, with one target only, and one that is scored from its very first token."""
    rng = random.Random(seed)
    sizes = [(13, 1), (21, 6), (9, 8), (17, 0), (2, 1)]
    return [Document.text(tuple(rng.choices(CLEAN, k=n)), scored) for n, scored in sizes]


def some_samples(noise: Noise | None, seed: int = 0) -> list[Sample]:
    rng = random.Random(seed)
    return [make_sample(document, noise, MASK, rng) for document in some_documents(seed)]


def pack_in(streams: int, samples: Sequence[Sample], padding: int = 3, attention: Attention = "split") -> Batch:
    """Deal the samples over so many streams, every one with some padding."""
    packs = [samples[i::streams] for i in range(streams)]
    rows = max(sum(sample.span.n_rows for sample in part) for part in packs) + padding
    return pack(packs, rows, MASK, attention)


def first_rows(streams: int, samples: Sequence[Sample], batch: Batch) -> list[int]:
    """Where each sample of `pack_in` starts in the packed rows."""
    starts, used = [], [i * (len(batch.tokens_T) // streams) for i in range(streams)]
    for index, sample in enumerate(samples):
        starts.append(used[index % streams])
        used[index % streams] += sample.span.n_rows
    return starts


def causal_logits(model: Transformer, tokens: Sequence[int]) -> Tensor:
    """Plain causal forward of one text, its mask written by hand: row i names token i + 1."""
    n = len(tokens)
    bias = torch.full((n, n), float("-inf")).triu(1)[None, None]
    stream = Stream(start=0, count=1, rows=n, past=0, bias_NQK=bias)
    return model.logits(model(torch.tensor(tokens), torch.arange(n), Masked(given=(stream,))))


def canvas_logits(model: Transformer, before: Sequence[int], shown: Sequence[int]) -> Tensor:
    """A canvas after a text, its mask written by hand: row j names slot j itself."""
    n, m = len(before), len(shown)
    bias = torch.full((n + m, n + m), float("-inf")).triu(1)
    bias[n:] = 0.0
    stream = Stream(start=0, count=1, rows=n + m, past=0, bias_NQK=bias[None, None])
    return model.logits(model(torch.tensor([*before, *shown]), torch.arange(n + m), Masked(given=(stream,)))[n:])
