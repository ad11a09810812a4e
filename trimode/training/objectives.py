"""What training minimises: L = w_ar * L_AR + w_diffusion * L_diffusion (arXiv 2607.05722, eq. 3), pure functions.

L_AR  = sum over targets i of -log p(x_i | x_<i), divided by the number of targets.
L_diffusion = sum over blocks b and masked targets i of b of weight_i * -log p(x_i | canvas_b, x before b), divided by
the number of all target positions, masked or not. Both halves come from one forward: commits are the clean text,
canvases the noised blocks, and who sees whom is the rule of `spans`.
"""

from dataclasses import dataclass

from torch import Tensor

from trimode.models.transformer import Model
from trimode.numerics.losses import weighted_cross_entropy
from trimode.training.data import Batch, Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """`value` is differentiable; `parts` are its means for the log, and `counts` what each was divided by."""

    value: Tensor
    parts: dict[str, Tensor]
    counts: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The published pair is 1.0 and 0.3; a small model trained from nothing wants more of the second."""

    ar: float = 1.0
    diffusion: float = 0.3


def joint_loss(model: Model, batch: Batch, weights: Weights) -> Loss:
    """Loss of one batch; a batch without canvases gives the plain autoregressive loss."""
    hidden_TD = model(batch.tokens_T, batch.positions_T, batch.visibility)

    def mean(rows: Rows) -> Tensor:
        total = weighted_cross_entropy(hidden_TD[rows.rows_S], rows.labels_S, rows.weights_S, model.logits)
        return total / max(rows.count, 1)

    parts = {"ar": mean(batch.ar)}
    value = weights.ar * parts["ar"]
    if batch.diffusion.count:
        parts["diffusion"] = mean(batch.diffusion)
        value = value + weights.diffusion * parts["diffusion"]
    counts = {"ar": batch.ar.count, "diffusion": batch.diffusion.count}
    return Loss(value=value, parts={name: part.detach() for name, part in parts.items()}, counts=counts)
