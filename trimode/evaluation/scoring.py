"""How likely a model's causal rows find the ends of texts, text by text. Exact; knows no task and no file.

Suffixes: D model, S selected rows, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from trimode.config import ModelConfig
from trimode.errors import InvalidInput
from trimode.models.adapters import Adapter, Applied
from trimode.models.transformer import Model
from trimode.numerics.visibility import serving
from trimode.spans import Span

ROWS = 2048  # of a forward
CHUNK = 1024  # rows whose scores over the vocabulary exist at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Token ids, the last `n_scored` of which are to be scored; at least one stands before them."""

    tokens: tuple[int, ...]
    n_scored: int

    def __post_init__(self) -> None:
        if not 0 < self.n_scored < len(self.tokens):
            before = len(self.tokens) - self.n_scored
            raise InvalidInput(f"{self.n_scored} tokens are to be scored behind {before}, both must be at least 1")


def check_causal(config: ModelConfig) -> None:
    """Refuse a checkpoint whose committed tokens see what comes after them: no row names the next token there."""
    if config.commit_visibility == "block":
        raise InvalidInput(
            "a likelihood is read from committed text that sees only what is before it; in this "
            f"{config.model_type} checkpoint committed blocks see both ways, so it can only generate"
        )


def score(
    model: Model, texts: Sequence[Text], at_once: int = 64, adapter: Adapter | None = None
) -> Iterator[tuple[float, bool]]:
    """Of each text in order: log p of its scored tokens in nats, and whether `ar` would have chosen every one of them.

    At most `at_once` texts share a forward. p is the model's own, float32 behind the head, in which the mask, never
    chosen, keeps its share. A text longer than ROWS goes through in parts.
    """
    check_causal(model.config)
    for group in groups(texts, at_once):
        yield from _scored(model, group, adapter)


def groups(texts: Sequence[Text], at_once: int) -> Iterator[list[Text]]:
    """Neighbours, at most `at_once` and ROWS rows together, unless one alone has more."""
    group: list[Text] = []
    rows = 0
    for text in texts:
        n_rows = len(text.tokens) - 1
        if group and (len(group) == at_once or rows + n_rows > ROWS):
            yield group
            group, rows = [], 0
        group.append(text)
        rows += n_rows
    if group:
        yield group


@torch.inference_mode()
def _scored(model: Model, texts: Sequence[Text], adapter: Adapter | None) -> list[tuple[float, bool]]:
    with getattr(model, "undisturbed", nullcontext)():
        hidden_SD = _hidden(model, texts, adapter)
        labels_S = torch.tensor(list(chain.from_iterable(text.tokens[-text.n_scored :] for text in texts)))
        judged = [
            _judged(model, hidden, labels.to(model.device))
            for hidden, labels in zip(hidden_SD.split(CHUNK), labels_S.split(CHUNK), strict=True)
        ]
    counts = [text.n_scored for text in texts]
    nats, chosen = (torch.cat(parts).cpu().split(counts) for parts in zip(*judged, strict=True))
    return [(float(a.double().sum()), bool(b.all())) for a, b in zip(nats, chosen, strict=True)]


def _hidden(model: Model, texts: Sequence[Text], adapter: Adapter | None) -> Tensor:
    """The rows before the scored tokens of every text, in order."""
    inputs = [text.tokens[:-1] for text in texts]
    caches = [model.new_cache(len(tokens)) for tokens in inputs]
    beside = {} if adapter is None else {"adapters": [Applied(adapter=adapter)]}
    parts = []
    for start in range(0, max(map(len, inputs)), ROWS):  # once, unless there is one text alone
        spans = [Span(commit=tokens[start : start + ROWS], kind="prefill") for tokens in inputs]
        fed = torch.tensor([token for span in spans for token in span.commit], device=model.device)
        positions = torch.tensor([start + i for span in spans for i in range(span.n_rows)], device=model.device)
        parts.append(model(fed, positions, serving(spans, [start] * len(spans)), caches, **beside))
        for cache, span in zip(caches, spans, strict=True):
            cache.keep(start + span.n_rows)
    by_text = torch.cat(parts).split([len(tokens) for tokens in inputs])
    return torch.cat([rows[-text.n_scored :] for text, rows in zip(texts, by_text, strict=True)])


def _judged(model: Model, hidden_SD: Tensor, labels_S: Tensor) -> tuple[Tensor, Tensor]:
    """log p of the labels [S], and which of them are the likeliest but the mask, the lowest id among equals [S]."""
    logits_SV = model.logits(hidden_SD).float()
    log_p_S = logits_SV.log_softmax(-1).gather(1, labels_S[:, None])[:, 0]
    if model.config.mask_token_id is not None:
        logits_SV[:, model.config.mask_token_id] = float("-inf")
    return log_p_S, logits_SV.argmax(-1) == labels_S
