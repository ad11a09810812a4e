"""The decoder-only network every family is a variation of. Obeys the visibility it is given; knows no mode.

Suffixes: T packed rows, D model, H query heads, G key heads, K head size, V vocabulary, S selected rows.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trimode.cache import Cache, KVPool, Pool
from trimode.config import ModelConfig
from trimode.cost import FLAT, TORCH_CPU, CostModel
from trimode.models.layers import attend_streams, head_norm, inverse_frequencies, rms_norm, rotate, rotations
from trimode.numerics.visibility import Stream, Visibility

if TYPE_CHECKING:
    from trimode.models.adapters import Applied


class Model(Protocol):
    """What the engine and the objectives need of a network."""

    config: ModelConfig

    @property
    def cost(self) -> CostModel: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...

    def __call__(
        self,
        tokens_T: Tensor,
        positions_T: Tensor,
        visibility: Visibility,
        cache: Sequence[Any] | None = None,
        adapters: "Sequence[Applied]" = (),
    ) -> Tensor:
        """Hidden rows [T, D]. Writes the rows' keys and values behind the length of each stream's cache.

        A row no adapter is for has the same bits as in a forward without adapters, unless it sees one that has.
        """
        ...

    def logits(self, hidden_SD: Tensor) -> Tensor:
        """Scores over the vocabulary [S, V], for the rows somebody asked for."""
        ...

    def new_pool(self, capacity: int) -> Pool:
        """Memory for so many positions of any requests."""
        ...

    def new_cache(self, capacity: int) -> Cache[Pool]:
        """An empty cache with memory of its own."""
        ...


class Layer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); query, key and value are one product, gate and up another.

    Some families add a bias to the projections of the attention, or norm each query and key head; None elsewhere.
    """

    qkv_bias: Tensor | None
    out_bias: Tensor | None
    q_norm: Tensor | None
    k_norm: Tensor | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = (config.n_heads, config.n_kv_heads, config.head_dim)
        self.eps = config.norm_eps
        self.parts: tuple[Callable[..., tuple[Tensor, Tensor, Tensor]], Callable[..., Tensor]] = (_before, _after)
        width, inner = config.hidden_size, config.n_heads * config.head_dim
        total = (config.n_heads + 2 * config.n_kv_heads) * config.head_dim
        self.input_norm = nn.Parameter(torch.empty(width))
        self.qkv = nn.Parameter(torch.empty(total, width))
        self.register_parameter("qkv_bias", _vector(total, config.qkv_bias))
        self.register_parameter("q_norm", _vector(config.head_dim, config.qk_norm))
        self.register_parameter("k_norm", _vector(config.head_dim, config.qk_norm))
        self.out = nn.Parameter(torch.empty(width, inner))
        self.register_parameter("out_bias", _vector(width, config.out_bias))
        self.post_norm = nn.Parameter(torch.empty(width))
        self.gate_up = nn.Parameter(torch.empty(2 * config.intermediate_size, width))
        self.down = nn.Parameter(torch.empty(width, config.intermediate_size))

    def forward(
        self, x_TD: Tensor, cos: Tensor, sin: Tensor, streams: Sequence[Stream],
        cache: Sequence[Cache[KVPool]] | None, index: int, adapters: "Sequence[Applied]" = (),
    ) -> Tensor:  # fmt: skip
        if adapters:  # which come and go: never compiled
            q, k, v = _before(self, x_TD, cos, sin, adapters, index)
            return _after(self, x_TD, attend_streams(q, k, v, streams, cache, index), adapters, index)
        before, after = self.parts
        q, k, v = before(self, x_TD, cos, sin)
        return after(self, x_TD, attend_streams(q, k, v, streams, cache, index))

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile what lies on both sides of the attention. The streams are others in every batch, and each new list of
        them would be compiled anew. Mutates."""
        self.parts = torch.compile(_before, *args, **options), torch.compile(_after, *args, **options)


def _before(
    layer: Layer, x_TD: Tensor, cos: Tensor, sin: Tensor, adapters: "Sequence[Applied]" = (), index: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [T, H, K], keys and values [T, G, K]."""
    n_heads, n_kv_heads, head_dim = layer.heads
    normed = rms_norm(x_TD, layer.input_norm, layer.eps)
    qkv = _product(layer, "qkv", normed, layer.qkv_bias, adapters, index).unflatten(-1, (-1, head_dim))
    qk, v = qkv.split((n_heads + n_kv_heads, n_kv_heads), dim=1)
    if layer.q_norm is not None and layer.k_norm is not None:
        qk = head_norm(qk, layer.q_norm, layer.k_norm, n_heads, layer.eps)
    q, k = rotate(qk, cos.to(qk.dtype), sin.to(qk.dtype)).split((n_heads, n_kv_heads), dim=1)
    return q, k, v


def _after(layer: Layer, x_TD: Tensor, attended: Tensor, adapters: "Sequence[Applied]" = (), index: int = 0) -> Tensor:
    """The stream [T, D] after attention and mlp have been added to it."""
    x_TD = x_TD + _product(layer, "out", attended, layer.out_bias, adapters, index)
    normed = rms_norm(x_TD, layer.post_norm, layer.eps)
    gate, up = _product(layer, "gate_up", normed, None, adapters, index).chunk(2, dim=-1)
    return x_TD + _product(layer, "down", F.silu(gate) * up, None, adapters, index)


def _product(
    layer: Layer, name: str, x_TD: Tensor, bias: Tensor | None, adapters: "Sequence[Applied]", index: int
) -> Tensor:
    """One of the layer's four products, with what the adapters add to it."""
    y_TD = F.linear(x_TD, getattr(layer, name), bias)
    for applied in adapters:
        applied.add(index, name, x_TD, y_TD)
    return y_TD


def _vector(n: int, exists: bool) -> nn.Parameter | None:
    return nn.Parameter(torch.empty(n)) if exists else None


class Transformer(nn.Module):
    """Embedding, layers, final norm and one head, used for causal rows and for canvas rows alike."""

    inverse_K: Tensor
    takes_adapters = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Parameter(torch.empty(config.vocab_size, config.hidden_size))
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.n_layers))
        self.norm = nn.Parameter(torch.empty(config.hidden_size))
        self.head = self.embedding if config.tied else nn.Parameter(torch.empty_like(self.embedding))
        self.register_buffer("inverse_K", inverse_frequencies(config.rope, config.head_dim), persistent=False)

    def forward(
        self,
        tokens_T: Tensor,
        positions_T: Tensor,
        visibility: Visibility,
        cache: Sequence[Cache[KVPool]] | None = None,
        adapters: "Sequence[Applied]" = (),
    ) -> Tensor:
        config = self.config
        cos, sin = rotations(self.inverse_K, positions_T, config.rope, config.n_heads, config.n_kv_heads)
        x_TD = F.embedding(tokens_T, self.embedding)
        dtype = _computed(x_TD)
        cos, sin = cos.to(dtype), sin.to(dtype)
        streams = visibility.streams(dtype, x_TD.device)
        for index, layer in enumerate(self.layers):
            x_TD = layer(x_TD, cos, sin, streams, cache, index, adapters)
        return rms_norm(x_TD, self.norm, config.norm_eps)

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile the layers, with the arguments of `torch.compile`. Mutates."""
        for layer in self.layers:
            layer.compile(*args, **options)

    @property
    def cost(self) -> CostModel:
        return TORCH_CPU if self.embedding.device.type == "cpu" else FLAT

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding.dtype

    @property
    def device(self) -> torch.device:
        return self.embedding.device

    def logits(self, hidden_SD: Tensor) -> Tensor:
        return F.linear(hidden_SD, self.head)

    def new_pool(self, capacity: int) -> KVPool:
        config = self.config
        return KVPool(
            config.n_layers, config.n_kv_heads, config.head_dim, capacity,
            self.embedding.dtype, self.embedding.device,
        )  # fmt: skip

    def new_cache(self, capacity: int) -> Cache[KVPool]:
        return Cache(self.new_pool(capacity))


def _computed(x: Tensor) -> torch.dtype:
    """The dtype of products with x, so that masks are cast once and not once per layer."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def initialise(model: Transformer, seed: int) -> None:
    """Fresh weights: norms 1, biases 0, embeddings N(0, 0.02), matrices N(0, 1/sqrt(inputs)), those that write to the
    stream smaller by sqrt(2 * layers). Mutates."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        with torch.no_grad():
            if weight.dim() == 1:
                weight.fill_(0.0 if name.endswith("_bias") else 1.0)
                continue
            std = 0.02 if name in ("embedding", "head") else weight.shape[1] ** -0.5
            if name.endswith((".out", ".down")):
                std /= (2 * model.config.n_layers) ** 0.5
            weight.normal_(0.0, std, generator=generator)
