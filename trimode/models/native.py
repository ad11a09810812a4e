"""The same network through the native library: weights packed once, one call per forward. CPU only.

The transformer it is made from stays the definition and the reference. Rows are computed independently of each other to
the last bit, so a token does not depend on what shares its forward, in bfloat16 as in float32.

Suffixes: T packed rows, D model, S selected rows, V vocabulary, P positions.
"""

import ctypes
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from trimode.cache import Cache, PanelPool
from trimode.cost import NATIVE_BFLOAT16, NATIVE_FLOAT32, CostModel
from trimode.errors import InvalidInput
from trimode.models.adapters import Applied
from trimode.models.layers import query_scale, rotations
from trimode.models.transformer import Transformer
from trimode.native import Unavailable, library
from trimode.native.packing import Packed, float_rows, pack, pack_gated
from trimode.native.structs import BF16, F32, INT8, Layer, Network, Products, Rows, Share
from trimode.native.workspace import Tables, Workspace, aligned
from trimode.numerics.visibility import Serving, Visibility
from trimode.spans import Rows as Chosen

KINDS = {torch.float32: F32, torch.bfloat16: BF16}
LONGEST_INT8 = 65536  # inputs of a sum of 8-bit products that surely fits into 32 bits


def reason_against(model: Transformer) -> str | None:
    """Why this model cannot run natively here, in one sentence, or None."""
    if model.device.type != "cpu":
        return f"the native forward runs on a CPU, the model is on {model.device}"
    if model.dtype not in KINDS:
        return f"the native forward has float32 and bfloat16, the model has {model.dtype}"
    for name in ("head_dim", "hidden_size"):
        if (size := getattr(model.config, name)) % 16:
            return f"the native forward wants a {name} that is a multiple of 16, the model has {size}"
    if model.config.out_bias:
        return "the native forward has no bias behind the attention, and the model has one"
    try:
        supported = library().supports(KINDS[model.dtype])
    except Unavailable as error:
        return str(error)
    return None if supported else f"this processor has no instructions for {model.dtype} products"


class NativeTransformer:
    """A transformer's forward as one native call. Obeys the same visibility, given as integers per row.

    The weights are packed when it is made: a change of the transformer after that (training) is not seen, or only in
    part, so make a new one. Any thread may call it; each has scratch memory of its own. It has no adapters.
    """

    takes_adapters = False

    def __init__(self, reference: Transformer) -> None:
        reason = reason_against(reference)
        if reason is not None:
            raise InvalidInput(f"backend 'native' cannot be used: {reason}")
        self.reference, self.config = reference, reference.config
        self.dtype, self.device = reference.dtype, reference.device
        self.cost: CostModel = NATIVE_BFLOAT16 if self.dtype == torch.bfloat16 else NATIVE_FLOAT32
        self._library, self._threads = library(), 0
        kind, longest = KINDS[self.dtype], max(self.config.hidden_size, self.config.intermediate_size)
        has_int8 = longest <= LONGEST_INT8 and self._library.supports(INT8)
        self._kinds = (kind, INT8 if has_int8 else kind)
        self._kept: list[Any] = []  # what the native structures point to
        self._layers = (Layer * self.config.n_layers)(*(self._layer(layer) for layer in reference.layers))
        self._head = self._keep(pack(reference.head, kind))
        self._work = Workspace(self._describe(), self._tables)

    def __call__(
        self, tokens_T: Tensor, positions_T: Tensor, visibility: Visibility,
        cache: Sequence[Cache[PanelPool]] | None = None, adapters: Sequence[Applied] = (),
    ) -> Tensor:  # fmt: skip
        if adapters:
            raise InvalidInput("backend 'native' has no adapters; backend 'torch' has")
        if cache is None or not isinstance(visibility, Serving):
            raise TypeError("the native forward serves spans that continue caches; training runs on the transformer")
        columns, drafts = spell(tokens_T.tolist(), positions_T.tolist(), visibility)
        n, n_own = len(drafts), drafts.count(False)
        order = None if True not in drafts[:n_own] else sorted(range(n), key=drafts.__getitem__)
        if order is not None:
            columns = [[column[row] for row in order] for column in columns]
        hidden_TD = torch.empty(n, self.config.hidden_size, dtype=torch.float32)
        self._forward(columns, n_own, cache, hidden_TD)
        if order is None:
            return hidden_TD
        restored_TD = torch.empty_like(hidden_TD)
        restored_TD[order] = hidden_TD
        return restored_TD

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Inside, torch works on one thread. Its others spin for a while after every operation, and where they have the
        processors, the crew of the native forward waits: a forward of 1 ms took 3.
        """
        self._threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(self._threads)
            self._threads = 0

    @property
    def threads(self) -> int:
        """Threads of a native call: as many as torch has, outside of `undisturbed`."""
        return self._threads or torch.get_num_threads()

    def logits(self, hidden_SD: Tensor) -> Tensor:
        """Scores over the vocabulary, float32 [S, V]."""
        matrix, (n, width), vocab = self._head.matrix, hidden_SD.shape, self.config.vocab_size
        given_SD = hidden_SD.float().contiguous()
        out_SV = torch.empty(n, vocab, dtype=torch.float32)
        self._library.logits(
            ctypes.byref(matrix), self._work.floats("head", n * width), given_SD.data_ptr(), n, width, vocab,
            out_SV.data_ptr(), self.threads,
        )  # fmt: skip
        return out_SV

    def greedy(self, logits_SV: Tensor) -> Chosen:
        """The likeliest tokens but the mask, the first of equals; their probabilities count the mask's share."""
        n, vocab = logits_SV.shape
        mask = self.config.mask_token_id
        given_SV = logits_SV.float().contiguous()
        found = np.empty((2, n), np.int64)
        base = found.ctypes.data
        self._library.greedy(
            given_SV.data_ptr(), n, vocab, -1 if mask is None else mask, base, base + 8 * n, self.threads
        )
        confidence_S = found[1].view(np.float64)
        return Chosen(token_S=found[0], confidence_S=confidence_S, score_S=confidence_S)

    def new_pool(self, capacity: int) -> PanelPool:
        config = self.config
        return PanelPool(config.n_layers, config.n_kv_heads, config.head_dim, capacity, self._library.lanes())

    def new_cache(self, capacity: int) -> Cache[PanelPool]:
        return Cache(self.new_pool(capacity))

    def _forward(
        self, columns: list[list[int]], n_own: int, cache: Sequence[Cache[PanelPool]], hidden_TD: Tensor
    ) -> None:
        """Rows, given as columns of integers, drafts last -> hidden_TD."""
        work, n, threads = self._work, len(columns[0]), self.threads
        if n == 0:
            return
        caches = (Share * len(cache))(*(Share(*each.pool.address(each)) for each in cache))
        table = array("q", chain.from_iterable(columns))
        base = table.buffer_info()[0]
        rows = Rows(n, n_own, *range(base, base + 7 * 8 * n, 8 * n), ctypes.addressof(caches))
        work.reserve(n, max(columns[3]) + 1, max(columns[1]) + 1, threads)
        wrong = self._library.forward(
            ctypes.byref(work.network), ctypes.byref(rows), ctypes.byref(work.scratch), hidden_TD.data_ptr(), threads
        )
        if wrong >= 0:
            raise ValueError(f"row {wrong} names a token, a position or a slot that is not there")

    def _layer(self, layer: Any) -> Layer:
        sets = []
        for kind in dict.fromkeys(self._kinds):
            gate_up = pack_gated(layer.gate_up, kind)
            packs = (pack(layer.qkv, kind), pack(layer.out, kind), gate_up, pack(layer.down, kind))
            sets.append(Products(*(self._keep(p).matrix for p in packs)))
        vectors = [getattr(layer, name, None) for name in ("input_norm", "post_norm", "qkv_bias", "q_norm", "k_norm")]
        return Layer(sets[0], sets[-1], *(None if v is None else self._floats(v) for v in vectors))

    def _describe(self) -> Network:
        c = self.config
        embedding, norm = self._floats(self.reference.embedding), self._floats(self.reference.norm)
        return Network(
            c.n_layers, c.hidden_size, aligned(c.intermediate_size), c.n_heads, c.n_kv_heads, c.head_dim, c.vocab_size,
            c.norm_eps, ctypes.addressof(self._layers), embedding, norm, None, None, None, 0,
        )  # fmt: skip

    def _tables(self, n: int) -> Tables:
        """Cosines, sines and query scales of positions below n, as the transformer computes them."""
        positions_P, rope, half = torch.arange(n), self.config.rope, self.config.head_dim // 2
        cos, sin = rotations(self.reference.inverse_K, positions_P, replace(rope, query_beta=0.0), 1, 1)
        scale_P = query_scale(positions_P, rope) * self.config.head_dim**-0.5
        return float_rows(cos[:, 0, :half]), float_rows(sin[:, 0, half:]), float_rows(scale_P)

    def _keep(self, packed: Packed) -> Packed:
        self._kept.append(packed)
        return packed

    def _floats(self, tensor: Tensor) -> int:
        self._kept.append(float_rows(tensor))
        return cast(int, self._kept[-1].ctypes.data)


def spell(tokens: list[int], positions: list[int], visibility: Serving) -> tuple[list[list[int]], list[bool]]:
    """By row: token, position, cache, and its slot, limit, start and stop in the cache; then which rows are drafts."""
    caches: list[int] = []
    slots: list[int] = []
    limits: list[int] = []
    starts: list[int] = []
    stops: list[int] = []
    drafts: list[bool] = []
    for index, (part, past) in enumerate(zip(visibility.layouts, visibility.pasts, strict=True)):
        n = len(part.tokens)
        caches += [index] * n
        slots += range(past, past + n)
        limits += [past + limit for limit in part.limits]
        starts += [past + start if stop else 0 for start, stop in zip(part.starts, part.stops, strict=True)]
        stops += [past + stop if stop else 0 for stop in part.stops]
        drafts += part.drafts
    return [tokens, positions, caches, slots, limits, starts, stops], drafts
