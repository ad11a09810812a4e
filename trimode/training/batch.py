"""Samples -> tensors of one forward. Knows spans and rows; no file, no noise, no loss.

Suffixes: T packed rows, S selected rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from trimode.numerics.packed import Attention, packed
from trimode.numerics.visibility import Visibility
from trimode.spans import Layout, layout
from trimode.training.samples import Sample, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Selected rows of a batch with labels and weights; `count` is what their loss is divided by."""

    rows_S: Tensor
    labels_S: Tensor
    weights_S: Tensor
    count: int

    def to(self, device: torch.device) -> "Scored":
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "count"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafts:
    """Targets behind slot 0 of drafting canvases: their row, the causal row naming the same position, canvas, sample.

    Canvases are numbered over the batch, their rows stand together and in order; samples have their global numbers.
    """

    rows_S: Tensor
    verifiers_S: Tensor
    canvases_S: Tensor
    samples_S: Tensor

    def to(self, device: torch.device) -> "Drafts":
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Packed samples: what the model is fed, and which rows are scored against what."""

    tokens_T: Tensor
    positions_T: Tensor
    visibility: Visibility
    ar: Scored
    diffusion: Scored
    drafts: Drafts
    samples: tuple[int, ...] = ()  # their global numbers, for messages

    def to(self, device: torch.device) -> "Batch":
        """On another device; the visibility moves itself."""
        parts = (f.name for f in fields(self) if f.name not in ("visibility", "samples"))
        return replace(self, **{name: getattr(self, name).to(device) for name in parts})


def pack(packs: Sequence[Sequence[Sample]], rows: int, mask_token_id: int, attention: Attention = "split") -> Batch:
    """Lay every pack of samples into `rows` rows; padding is mask tokens that nobody sees or scores.

    `attention` is the form of the rule (`numerics/packed.py`), which changes nothing but time and memory.
    """
    tokens: list[int] = []
    positions: list[int] = []
    ar: list[Target] = []
    diffusion: list[Target] = []
    drafts: list[tuple[int, int, int, int]] = []
    for index, samples in enumerate(packs):
        for sample in samples:
            base = len(tokens)
            spelled = layout(sample.span)
            tokens += spelled.tokens
            positions += spelled.offsets
            drafts += [(base + row, base + verifier, base + canvas, sample.index)
                       for row, verifier, canvas in _drafted(sample, spelled)]  # fmt: skip
            for targets, all_targets in ((sample.ar, ar), (sample.diffusion, diffusion)):
                all_targets.extend(Target(row=base + t.row, label=t.label, weight=t.weight) for t in targets)
        padding = (index + 1) * rows - len(tokens)
        if padding < 0:
            raise ValueError(f"a pack has {rows - padding} rows, a stream holds {rows}")
        tokens += [mask_token_id] * padding
        positions += [0] * padding
    every = [sample for samples in packs for sample in samples]
    return Batch(
        tokens_T=torch.tensor(tokens),
        positions_T=torch.tensor(positions),
        visibility=packed([[sample.span for sample in samples] for samples in packs], rows, attention),
        ar=_scored(ar, len(ar)),
        diffusion=_scored(diffusion, sum(sample.n_diffusion for sample in every)),
        drafts=_drafts(drafts),
        samples=tuple(sample.index for sample in every),
    )


def _drafted(sample: Sample, spelled: Layout) -> list[tuple[int, int, int]]:
    """(row, verifying row, first row of the canvas) of the targets on drafting canvases: commit p - 1 names p.

    Not of slot 0: a decoder takes it from the verifier and never reads its row. Counted, its mistakes would end every
    draft before the slots that are read. The rows of shifted canvases name the slot behind them.
    """
    shift = int(any(canvas.shifted for canvas in sample.span.canvases))
    rows = (target.row for target in sample.diffusion if spelled.drafts[target.row])
    return [
        (row, spelled.offsets[row] + shift - 1, spelled.starts[row])
        for row in rows if row + shift > spelled.starts[row]
    ]  # fmt: skip


def _drafts(drafts: Sequence[tuple[int, int, int, int]]) -> Drafts:
    rows, verifiers, starts, samples = torch.tensor(drafts, dtype=torch.long).reshape(-1, 4).unbind(1)
    canvases = torch.unique_consecutive(starts, return_inverse=True)[1]
    return Drafts(rows_S=rows, verifiers_S=verifiers, canvases_S=canvases, samples_S=samples)


def _scored(targets: Sequence[Target], count: int) -> Scored:
    return Scored(
        rows_S=torch.tensor([t.row for t in targets], dtype=torch.long),
        labels_S=torch.tensor([t.label for t in targets], dtype=torch.long),
        weights_S=torch.tensor([t.weight for t in targets], dtype=torch.float32),
        count=count,
    )
