"""Random documents and their training samples, and the slow plain forwards that training is compared with."""

import random
from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.fakes import EOS, MASK
from trimode.models.transformer import Transformer
from trimode.numerics.noise import Noise
from trimode.numerics.packed import Attention
from trimode.numerics.visibility import Masked, Stream
from trimode.training.batch import Batch, pack
from trimode.training.documents import Document, Special
from trimode.training.samples import Sample, make_sample

CLEAN = range(4, 61)  # ids that are not special in the tiny configuration
SPECIAL = Special(mask_token_id=MASK, eos_token_id=EOS)
MARKED = Special(mask_token_id=MASK, eos_token_id=EOS, fim=(90, 91, 92))  # prefix, suffix, middle


def some_documents(seed: int = 0) -> list[Document]:
    """Texts, one after a prompt, one of one target, one scored from its first token; two turns; a hole."""
    rng = random.Random(seed)
    sizes = [(13, 1), (21, 6), (9, 8), (17, 0), (2, 1)]
    texts = [Document.text(tuple(rng.choices(CLEAN, k=n)), scored) for n, scored in sizes]
    turns = Document(tokens=tuple(rng.choices(CLEAN, k=19)), answers=((3, 6), (9, 19)))
    hole = Document(tokens=tuple(rng.choices(CLEAN, k=16)), answers=((5, 11),), hole=(5, 11))
    return [*texts, turns, hole]


def some_samples(noise: Noise | None, seed: int = 0) -> list[Sample]:
    return [make_sample(document, noise, SPECIAL, f"{seed}:{i}", i) for i, document in enumerate(some_documents(seed))]


@st.composite
def documents(draw: st.DrawFn, longest: int = 60) -> Document:
    """Any document: every token tells where it stands; texts, some of which end with EOS, conversations, holes."""
    n = draw(st.integers(1, longest))
    tokens, kind = tuple(range(100, 100 + n)), draw(st.sampled_from(["text", "ended", "turns", "hole"]))
    if kind in ("text", "ended"):
        return Document.text((*tokens[:-1], EOS) if kind == "ended" else tokens, draw(st.integers(0, 1)))
    n_edges = 2 if kind == "hole" else 2 * draw(st.integers(1, 3))
    edges = sorted(draw(st.lists(st.integers(0, n), min_size=n_edges, max_size=n_edges)))
    answers = tuple(zip(edges[::2], edges[1::2], strict=True))
    return Document(tokens=tokens, answers=answers, hole=answers[0] if kind == "hole" else None)


@st.composite
def noises(draw: st.DrawFn) -> Noise:
    """Any noise, of any scheme; what excludes each other is not drawn together."""
    share = st.sampled_from([0.0, 0.3, 1.0])
    kinds: list[dict[str, Any]] = [{}, {"half_life": 0.1}, {"views": 2}, {"scheme": "sequence"}, {"drafts": True}]
    kind = draw(st.sampled_from(kinds))
    return Noise(
        block_sizes=tuple(draw(st.lists(st.integers(2 if "drafts" in kind else 1, 9), min_size=1, max_size=3))),
        all_masked_share=draw(share), suffix_first_share=draw(share),
        infill_share=0.0 if "drafts" in kind else draw(share), **kind,
    )  # fmt: skip


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
