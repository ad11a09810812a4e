"""What training minimises: L = w_ar * L_AR + w_diffusion * L_diffusion (arXiv 2607.05722, eq. 3), pure functions.

L_AR  = sum over targets i of -log p(x_i | x_<i), divided by the number of targets.
L_diffusion = sum over blocks b and masked targets i of b of weight_i * -log p(x_i | canvas_b, x before b), divided by
the number of all target positions, masked or not. Both halves come from one forward: commits are the clean text,
canvases the noised blocks, and who sees whom is the rule of `spans`.

An objective gives sums and counts; what they are divided by is counted over the global batch, so that neither ranks nor
micro-batches change the loss.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from trimode.models.transformer import Model
from trimode.numerics.losses import weighted_cross_entropy
from trimode.training.batch import Batch, Scored


class Objective(Protocol):
    """Parts by name: their weights, their sums over a batch, and the counts that divide them."""

    @property
    def weights(self) -> Mapping[str, float]: ...
    def counts(self, batch: Batch) -> dict[str, int]:
        """What each part of this batch adds to its divisor; known before the forward."""
        ...

    def sums(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        """The same parts, each a differentiable scalar sum."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Joint:
    """Autoregression and block diffusion in one forward; a batch without canvases has the first part only.

    The published weights are 1.0 and 0.3; a small model trained from nothing wants more of the second.
    """

    weights: Mapping[str, float] = field(default_factory=lambda: {"ar": 1.0, "diffusion": 0.3})

    def counts(self, batch: Batch) -> dict[str, int]:
        return {"ar": batch.ar.count, "diffusion": batch.diffusion.count}

    def sums(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        hidden_TD = model(batch.tokens_T, batch.positions_T, batch.visibility)

        def total(scored: Scored) -> Tensor:
            return weighted_cross_entropy(hidden_TD[scored.rows_S], scored.labels_S, scored.weights_S, model.logits)

        return {"ar": total(batch.ar), "diffusion": total(batch.diffusion)}


def value(sums: Mapping[str, Tensor], counts: Mapping[str, int], weights: Mapping[str, float]) -> Tensor:
    """sum over parts of weight * sum / count: the loss of what was summed, as its share of what was counted."""
    parts = [weights[name] * sums[name] / max(counts[name], 1) for name in sums]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
