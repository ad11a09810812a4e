"""What a network computes for a few tokens, to hold two checkpoints against each other."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trimode.errors import CheckpointError
from trimode.models.checkpoint import DTYPES
from trimode.models.transformer import Transformer
from trimode.numerics.visibility import serving
from trimode.spans import Span

TOLERANCE = 1e-5  # of float32 logits; narrower types: in units of their last place


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a network computes: causal logits over the base's vocabulary but the mask, and a greedy answer."""

    logits_TV: Tensor
    answer: tuple[int, ...]


@torch.inference_mode()
def probe(model: Transformer, n_words: int, mask_id: int, length: int = 16) -> Probe:
    """Ids from all over the vocabulary, read once, then continued. The head's first rows, so that shapes are equal."""
    words = [token for token in range(n_words) if token != mask_id]
    tokens = [words[i * 7919 % len(words)] for i in range(length)]
    rows: list[Tensor] = []
    for _ in range(length):
        visibility = serving([Span(commit=tuple(tokens), kind="prefill")], [0])
        hidden = model(torch.tensor(tokens), torch.arange(len(tokens)), visibility)
        logits = F.linear(hidden if not rows else hidden[-1:], model.head[:n_words])
        rows.append(logits[:, words].float())
        tokens.append(words[int(rows[-1][-1].argmax())])
    return Probe(logits_TV=torch.cat(rows), answer=tuple(tokens[length:]))


def compare(before: Probe, after: Probe, dtype: str) -> float:
    """The largest difference of two networks' logits, or a sentence that they are not the same."""
    difference = float((before.logits_TV - after.logits_TV).abs().max())
    scale = float(before.logits_TV.abs().max())
    allowed = TOLERANCE if dtype == "float32" else 4 * torch.finfo(DTYPES[dtype]).eps * scale
    if not difference <= allowed or before.answer != after.answer:
        raise CheckpointError(f"the written files do not compute what the base does: logits differ by {difference:.3g}")
    return difference
