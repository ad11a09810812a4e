"""Keys and values of committed tokens: pools of memory, and what of them is one request's. Tensors only: who owns which
page is the engine's business.

Suffixes: L layers, G key heads, S slots, K head size, R new rows.
"""

from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Pool(Protocol):
    """Memory of so many slots, one for each position of a text."""

    @property
    def capacity(self) -> int: ...
    @property
    def n_bytes(self) -> int: ...

    def grow(self, capacity: int) -> None:
        """Make room for `capacity` slots, keeping what is written. Mutates."""
        ...

    def clean(self, pages: Sequence[int], page_size: int) -> None:
        """Let nothing of who had these pages before reach who has them next. Mutates."""
        ...


P_co = TypeVar("P_co", bound=Pool, covariant=True)


class Cache(Generic[P_co]):
    """One request's share of a pool: all of it, or pages, in the order of its text.

    `length` counts the committed positions; what lies beyond is scratch. A forward writes the rows of a span behind
    `length`, commits first, so keeping some of the commits afterwards is one assignment, and canvas rows are
    overwritten by the next span.
    """

    def __init__(self, pool: P_co, page_size: int | None = None) -> None:
        """`page_size`: slots of a page; None: the whole pool is this cache's, and grows with it."""
        self.pool, self.page_size = pool, page_size
        self.pages: tuple[int, ...] = ()
        self.length = 0
        self.offset: int | None = 0  # the pool's slot of position 0, where the others follow it in order; else None
        self.spelled: Any = None  # a pool's note of the pages, thrown away with them

    @property
    def capacity(self) -> int:
        return self.pool.capacity if self.page_size is None else len(self.pages) * self.page_size

    def keep(self, length: int) -> None:
        """Say that the first `length` positions are committed. Mutates."""
        if not 0 <= length <= self.capacity:
            raise ValueError(f"cannot keep {length} of {self.capacity} positions")
        self.length = length

    def reserve(self, capacity: int) -> None:
        """Make room for `capacity` positions, keeping the committed ones. Pages are given, not made. Mutates."""
        if capacity <= self.capacity:
            return
        if self.page_size is not None:
            raise ValueError(f"{len(self.pages)} pages of {self.page_size} hold no {capacity} positions")
        self.pool.grow(max(capacity, 2 * self.capacity))

    def hold(self, pages: Sequence[int]) -> None:
        """Let these pages, in order, be the positions from 0 on; what is written in them stays. Mutates."""
        assert self.page_size is not None
        self.pages, self.spelled = tuple(pages), None
        is_run = all(page == self.pages[0] + i for i, page in enumerate(self.pages))
        self.offset = (self.pages[0] if self.pages else 0) * self.page_size if is_run else None
        self.length = min(self.length, self.capacity)

    def slots(self) -> list[int]:
        """The pool's slot of every position there is room for."""
        if self.offset is not None:
            return list(range(self.offset, self.offset + self.capacity))
        size = self.page_size or 1
        return [page * size + i for page in self.pages for i in range(size)]


class KVPool:
    """Torch's: every layer's keys and values, slot by slot."""

    def __init__(
        self, n_layers: int, n_kv_heads: int, head_dim: int, capacity: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.k_LGSK = torch.empty(n_layers, n_kv_heads, capacity, head_dim, dtype=dtype, device=device)
        self.v_LGSK = torch.empty_like(self.k_LGSK)

    @property
    def capacity(self) -> int:
        return self.k_LGSK.shape[2]

    @property
    def n_bytes(self) -> int:
        return self.k_LGSK.nbytes + self.v_LGSK.nbytes

    def grow(self, capacity: int) -> None:
        """Make room for `capacity` slots, keeping what is written. Mutates."""
        old, shape = self.capacity, list(self.k_LGSK.shape)
        shape[2] = capacity
        k_LGSK, v_LGSK = self.k_LGSK.new_empty(shape), self.v_LGSK.new_empty(shape)  # both, or neither
        k_LGSK[:, :, :old], v_LGSK[:, :, :old] = self.k_LGSK, self.v_LGSK
        self.k_LGSK, self.v_LGSK = k_LGSK, v_LGSK

    def clean(self, pages: Sequence[int], page_size: int) -> None:
        """Nothing is read here that was not written since."""

    def write(self, cache: "Cache[KVPool]", layer: int, k_RGK: Tensor, v_RGK: Tensor) -> tuple[Tensor, Tensor]:
        """Write rows behind a cache's length, which stays; past and new together, [G, length + R, K] each: views where
        its slots stand in order, else copies. Mutates."""
        start, stop = cache.length, cache.length + k_RGK.shape[0]
        if stop > cache.capacity:
            raise ValueError(f"{stop} positions are more than the {cache.capacity} there is room for")
        k_GSK, v_GSK = self.k_LGSK[layer], self.v_LGSK[layer]
        if (at := cache.offset) is not None:
            k_GSK[:, at + start : at + stop] = k_RGK.transpose(0, 1)
            v_GSK[:, at + start : at + stop] = v_RGK.transpose(0, 1)
            return k_GSK[:, at : at + stop], v_GSK[:, at : at + stop]
        if cache.spelled is None:
            cache.spelled = torch.tensor(cache.slots(), device=k_GSK.device)
        slots_S: Tensor = cache.spelled[:stop]
        k_GSK[:, slots_S[start:]] = k_RGK.transpose(0, 1).to(k_GSK.dtype)
        v_GSK[:, slots_S[start:]] = v_RGK.transpose(0, 1).to(v_GSK.dtype)
        return k_GSK.index_select(1, slots_S), v_GSK.index_select(1, slots_S)


class PanelPool:
    """The native forward's: float32, keys of `lanes` neighbouring slots side by side.

    Keys [L, G, S / lanes, K, lanes], values [L, G, S, K]; the native library writes and reads them.
    """

    def __init__(self, n_layers: int, n_kv_heads: int, head_dim: int, capacity: int, lanes: int) -> None:
        self._shape, self._lanes = (n_layers, n_kv_heads, head_dim), lanes
        self._hold(*self._zeros(capacity))

    def _hold(self, k: NDArray[np.float32], v: NDArray[np.float32]) -> None:
        self.k, self.v = k, v
        self._address = (k.ctypes.data, v.ctypes.data)  # to ask for it takes longer than all the rest of `address`

    @property
    def capacity(self) -> int:
        return int(self.v.shape[2])

    @property
    def n_bytes(self) -> int:
        return self.k.nbytes + self.v.nbytes

    def grow(self, capacity: int) -> None:
        """Make room for `capacity` slots, keeping what is written. Mutates."""
        k, v = self._zeros(capacity)  # both, or neither
        k[:, :, : self.k.shape[2]], v[:, :, : self.capacity] = self.k, self.v
        self._hold(k, v)

    def clean(self, pages: Sequence[int], page_size: int) -> None:
        """Slots beside those that are written are read, too, with weight 0, which leaves of a NaN a NaN. Mutates."""
        n_layers, n_kv_heads, head_dim = self._shape
        assert self.capacity % page_size == 0
        self.v.reshape(n_layers, n_kv_heads, -1, page_size, head_dim)[:, :, list(pages)] = 0

    def _zeros(self, capacity: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Keys and values of at least so many slots: what is not written is read with weight 0, so must be finite."""
        n_layers, n_kv_heads, head_dim = self._shape
        panels = -(-capacity // self._lanes)
        return (
            np.zeros((n_layers, n_kv_heads, panels, head_dim, self._lanes), np.float32),
            np.zeros((n_layers, n_kv_heads, panels * self._lanes, head_dim), np.float32),
        )

    def address(self, cache: "Cache[PanelPool]") -> tuple[int, int, int, int, int | None, int]:
        """Where a cache is: keys, values, slots of the pool, positions, and where its slots do not stand in order from
        the pool's first on, the slot of each page and the size of one."""
        if cache.page_size is None:
            return *self._address, self.capacity, self.capacity, None, 1
        if cache.spelled is None:
            slots = np.array(cache.pages, np.int64) * cache.page_size
            cache.spelled = slots, slots.ctypes.data
        return *self._address, self.capacity, cache.capacity, cache.spelled[1], cache.page_size
