"""Low-rank changes (LoRA) beside the weights: which rows they hold for, peft's files, merging. Knows no request.

Our layers hold query, key and value, and gate and up, as one product each; an adapter has a pair of matrices for each
projection of the checkpoint, and writes into that projection's columns. Suffixes: T packed rows, D inputs or outputs.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trimode.cache import Cache, KVPool
from trimode.config import ModelConfig
from trimode.cost import CostModel
from trimode.errors import CheckpointError, InvalidInput
from trimode.models import weights
from trimode.models.adapter_config import FILE, TARGETS, AdapterConfig, parse, spell
from trimode.models.checkpoint import read_json, tensors
from trimode.models.transformer import Transformer
from trimode.numerics.visibility import Visibility

WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """A module of the checkpoint: the rows [start, stop) of a layer's parameter."""

    path: str
    layer: int
    parameter: str
    start: int
    stop: int
    inputs: int

    @property
    def target(self) -> str:
        """The last part of its name."""
        return self.path.rpartition(".")[2]


def projections(config: ModelConfig) -> Iterator[Projection]:
    """The seven of every layer, named as the family names them."""
    inner = config.n_heads * config.head_dim
    inputs = {"qkv": config.hidden_size, "out": inner, "gate_up": config.hidden_size, "down": config.intermediate_size}
    for name, pieces in tensors(config):
        _, _, parameter = name.rpartition(".")
        start = 0
        for tensor, rows in pieces if parameter in inputs else ():
            yield Projection(
                path=tensor.removesuffix(".weight"), layer=int(name.split(".")[1]), parameter=parameter,
                start=start, stop=start + rows, inputs=inputs[parameter],
            )  # fmt: skip
            start += rows


class Pair(nn.Module):
    """scale * B(A(x)): the change of one projection."""

    def __init__(self, place: Projection, rank: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.place, self.scale, self.dropout = place, scale, dropout
        self.A = nn.Parameter(torch.empty(rank, place.inputs))
        self.B = nn.Parameter(torch.empty(place.stop - place.start, rank))

    def forward(self, x_TD: Tensor) -> Tensor:
        x_TD = F.dropout(x_TD, self.dropout, self.training) if self.dropout else x_TD
        return F.linear(F.linear(x_TD, self.A.to(x_TD.dtype)), self.B.to(x_TD.dtype)) * self.scale

    def delta(self) -> Tensor:
        """The same as a change of the weights, float32."""
        return self.scale * (self.B.detach().float() @ self.A.detach().float())


class Adapter(nn.Module):
    """The pairs of all projections an adapter has, by layer and target."""

    def __init__(self, config: ModelConfig, settings: AdapterConfig, name: str = "adapter") -> None:
        """Pairs with memory but no values yet. Raises InvalidInput for a target the model does not have."""
        super().__init__()
        self.config, self.settings, self.name = config, settings, name
        known = list(projections(config))
        for target in settings.targets:
            if not any(p.path == target or p.path.endswith("." + target) for p in known):
                raise InvalidInput(f"target {target!r:.80} is not a projection of a layer, allowed are "
                                   f"{', '.join(TARGETS)}")  # fmt: skip
        self.layers = nn.ModuleList(nn.ModuleDict() for _ in range(config.n_layers))
        self._at: dict[tuple[int, str], list[Pair]] = {}
        for place in known:
            if settings.covers(place.path):
                pair = Pair(place, settings.rank_of(place.path), settings.scale_of(place.path), settings.dropout)
                cast(nn.ModuleDict, self.layers[place.layer])[place.target] = pair
                self._at.setdefault((place.layer, place.parameter), []).append(pair)

    @classmethod
    def new(
        cls, config: ModelConfig, rank: int, alpha: float, targets: Sequence[str] = TARGETS, seed: int = 0,
        draft: bool = False, *, use_rslora: bool = False, dropout: float = 0.0, name: str = "adapter",
    ) -> "Adapter":  # fmt: skip
        """A float32 adapter that changes nothing yet: B is 0, A uniform in +-1/sqrt(inputs), as in peft.

        The drafter as published has o_proj alone (arXiv 2607.05722).
        """
        settings = AdapterConfig(rank=rank, alpha=alpha, targets=tuple(targets), use_rslora=use_rslora,
                                 dropout=dropout, draft=draft)  # fmt: skip
        adapter, generator = cls(config, settings, name), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for pair in adapter.pairs():
                bound = pair.place.inputs**-0.5
                pair.A.uniform_(-bound, bound, generator=generator)
                pair.B.zero_()
        return adapter

    @classmethod
    def load(cls, folder: str | Path, config: ModelConfig, draft: bool | None = None) -> "Adapter":
        """Read a folder as peft writes it. `draft`: a draft adapter or not; None: what the file says of itself.

        Raises CheckpointError for missing, damaged or misshapen files, and for what is not supported, with the reason.
        """
        folder = Path(folder)
        path = folder / WEIGHTS
        if not path.exists():
            raise CheckpointError(f"{path}: this file is missing (pickled adapters, .bin, are not read)")
        marked = weights.metadata(path).get("draft") == "true"
        settings = parse(read_json(folder / FILE), marked if draft is None else draft)
        try:
            adapter = cls(config, settings, folder.resolve().name)
        except InvalidInput as error:
            raise CheckpointError(f"{folder / FILE}: {error}") from None
        except (RuntimeError, MemoryError) as error:
            raise CheckpointError(f"{folder / FILE}: no memory for an adapter of rank {settings.rank}") from error
        with torch.no_grad():
            weights.fill(folder, {path: None}, adapter.named())
        return adapter

    def save(self, folder: str | Path, base: str) -> None:
        """Write adapter_config.json and the tensors as peft does; `base` names the model it is for.

        A draft adapter is marked as one in the tensors' metadata, which peft does not read.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        mark = {"draft": "true"} if self.draft else {}
        weights.write(folder / WEIGHTS, {name: row.detach().cpu() for name, row in self.named().items()}, **mark)
        (folder / FILE).write_text(json.dumps(spell(self.settings, base), indent=2) + "\n", "utf-8")

    @torch.no_grad()
    def gathered(self) -> "Adapter":
        """A copy with whole tensors on the CPU, for saving. Collective where the adapter is spread over processes."""
        from torch.distributed.tensor import DTensor

        copy = Adapter(self.config, self.settings, self.name)
        for whole, own in zip(copy.parameters(), self.parameters(), strict=True):
            whole.copy_(own.full_tensor() if isinstance(own, DTensor) else own)
        return copy

    @property
    def draft(self) -> bool:
        """Whether it holds for the rows of drafts alone."""
        return self.settings.draft

    def pairs(self) -> Iterator[Pair]:
        """Every projection's change, layer by layer."""
        for at in self._at.values():
            yield from at

    def named(self) -> dict[str, Tensor]:
        """The tensors under peft's names."""
        return {
            f"base_model.model.{pair.place.path}.lora_{x}.weight": tensor
            for pair in self.pairs() for x, tensor in (("A", pair.A), ("B", pair.B))
        }  # fmt: skip

    def at(self, layer: int, parameter: str) -> Sequence[Pair]:
        """The changes that go into one product of a layer."""
        return self._at.get((layer, parameter), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """An adapter in one forward: `rows` are the packed rows it holds for, without repeats; None: all of them."""

    adapter: Adapter
    rows: Tensor | None = None

    def add(self, layer: int, parameter: str, x_TD: Tensor, y_TD: Tensor) -> None:
        """Add the changes of a product of `x_TD` to its result. Mutates `y_TD`, of the named rows alone."""
        pairs = self.adapter.at(layer, parameter)
        if not pairs:
            return
        given_TD = x_TD if self.rows is None else x_TD.index_select(0, self.rows)
        for pair in pairs:
            columns, change = y_TD[:, pair.place.start : pair.place.stop], pair(given_TD).to(y_TD.dtype)
            if self.rows is None:
                columns.add_(change)
            else:
                columns.index_add_(0, self.rows, change)


class Adapted(nn.Module):
    """A model whose every forward has an adapter on, a draft adapter on the rows of drafts. Its base is frozen."""

    def __init__(self, model: Transformer, adapter: Adapter) -> None:
        """Freezes the model."""
        super().__init__()
        self.model, self.adapter, self.config = model.requires_grad_(False), adapter, model.config

    def forward(
        self, tokens_T: Tensor, positions_T: Tensor, visibility: Visibility,
        cache: Sequence[Cache[KVPool]] | None = None, adapters: Sequence[Applied] = (),
    ) -> Tensor:  # fmt: skip
        rows = torch.tensor(visibility.draft_rows, dtype=torch.long, device=tokens_T.device)
        own = Applied(adapter=self.adapter, rows=rows if self.adapter.draft else None)
        hidden_TD: Tensor = self.model(tokens_T, positions_T, visibility, cache, (own, *adapters))
        return hidden_TD

    @property
    def cost(self) -> CostModel:
        return self.model.cost

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def device(self) -> torch.device:
        return self.model.device

    def logits(self, hidden_SD: Tensor) -> Tensor:
        return self.model.logits(hidden_SD)

    def new_pool(self, capacity: int) -> KVPool:
        return self.model.new_pool(capacity)

    def new_cache(self, capacity: int) -> Cache[KVPool]:
        return self.model.new_cache(capacity)
