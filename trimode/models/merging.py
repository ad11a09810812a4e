"""Domain adapters into the weights and out again. Both mutate the model."""

import torch

from trimode.errors import InvalidInput
from trimode.models.adapters import Adapter
from trimode.models.transformer import Transformer


def merge(model: Transformer, adapter: Adapter) -> None:
    """W += scale * B A, computed in float32 and stored in the model's dtype.

    Raises InvalidInput for a draft adapter: it holds for the rows of drafts alone, weights hold for all.
    """
    if adapter.draft:
        raise InvalidInput(f"{adapter.name} is a draft adapter: it holds for the rows of drafts alone, so it cannot be "
                           "merged into weights, which hold for every row")  # fmt: skip
    _shift(model, adapter, 1.0)


def unmerge(model: Transformer, adapter: Adapter) -> None:
    """W -= scale * B A: the weights before `merge` to the rounding of float32.

    Raises InvalidInput for a model of a shorter type, where the sum has lost what a difference would need.
    """
    if model.dtype != torch.float32:
        raise InvalidInput(f"the model is of {model.dtype}, and only float32 weights come back by subtraction; "
                           "load the checkpoint again")  # fmt: skip
    _shift(model, adapter, -1.0)


@torch.no_grad()
def _shift(model: Transformer, adapter: Adapter, sign: float) -> None:
    for pair in adapter.pairs():
        place = pair.place
        rows = getattr(model.layers[place.layer], place.parameter)[place.start : place.stop]
        rows.copy_(rows.float() + sign * pair.delta().to(rows.device))
