"""The caches of all requests: one pool, its pages, and texts that begin alike. Knows no forward and no turn."""

import os
from collections.abc import Iterable
from contextlib import suppress
from math import ceil, lcm

import torch

from trimode.cache import Cache, Pool
from trimode.engine.pages import Pages
from trimode.engine.request import Request
from trimode.models.transformer import Model
from trimode.spans import Span

SLOTS = 16  # of a page, at least: a multiple of what processors read at once
AHEAD = 1024  # positions given at first where there is room, so that their pages stand in order


class Memory:
    """Gives pages to requests and takes them back. `reuses`: a final page serves any text that begins with it."""

    def __init__(self, model: Model, limit: int | None = None, reuses: bool = False) -> None:
        """At most `limit` positions; more only for a request that runs alone. Without one nothing is kept for reuse."""
        self.page_size = lcm(SLOTS, model.config.commit_block)
        self.pages = Pages(self.page_size, None if limit is None else ceil(limit / self.page_size))
        self.reuses = reuses and limit is not None
        n = (self.pages.limit or 0) * self.page_size  # all at once: a system backs with memory what is written to
        self._pool: Pool = model.new_pool(n)

    def new_cache(self) -> Cache[Pool]:
        """Of a request that has no page yet."""
        return Cache(self._pool, self.page_size)

    def adopt(self, request: Request) -> None:
        """Give an empty request the pages that are known of its text; its last token is always computed. Mutates."""
        if not self.reuses or request.cache.pages or request.is_scored:
            return
        pages, request.nodes = self.pages.find(request.root, request.tokens, len(request.tokens) - 1)
        request.cache.hold(pages)
        request.cache.keep(len(pages) * self.page_size)
        if request.n_cached is None:
            request.n_cached = min(request.cache.length, request.n_prompt)

    def lacks(self, request: Request, span: Span) -> int:
        """Pages that a request needs beyond its own for a span."""
        return max(self._n_pages(request.cache.length + span.n_rows) - len(request.cache.pages), 0)

    def give(self, request: Request, span: Span) -> None:
        """The pages that a span needs. Mutates. Raises what the memory of a machine raises where it ends."""
        if n := self.lacks(request, span):
            self._extend(request, n)

    def give_ahead(self, request: Request, span: Span) -> None:
        """To who has none to spare behind a span the pages of the text to come, where there is room, so that they stand
        in order. Mutates."""
        cache = request.cache
        if self._n_pages(cache.length + span.n_rows) < len(cache.pages):
            return
        n = self._n_pages(min(request.end, cache.length + AHEAD)) - len(cache.pages)
        if 0 < n <= self.pages.n_empty:
            with suppress(MemoryError, RuntimeError):  # nobody needs them yet
                self._extend(request, n)

    def _extend(self, request: Request, n: int) -> None:
        own = request.cache.pages
        more = self.pages.take(n, own[-1] if own else None)
        missing = (max(more) + 1) * self.page_size - self._pool.capacity
        try:
            if missing > 0:
                least, usual = self._pool.capacity + missing, 2 * self._pool.capacity
                self._pool.grow(max(least, usual) if self.pages.limit is None else least)
        except Exception:
            self.pages.drop(more)
            raise
        self._pool.clean(more, self.page_size)
        request.cache.hold((*own, *more))

    def trim(self, requests: Iterable[Request]) -> None:
        """Take back the pages behind what is committed. Mutates."""
        for request in requests:
            n = self._n_pages(request.cache.length)
            if surplus := request.cache.pages[n:]:
                request.cache.hold(request.cache.pages[:n])
                self.pages.drop(surplus)

    def settle(self, request: Request) -> None:
        """Enter the pages that are full of final tokens since the last time. Mutates."""
        if not self.reuses:
            return
        size, cache = self.page_size, request.cache
        n_full = min(cache.length, len(request.tokens)) // size
        for index in range(len(request.nodes), n_full):
            tokens = request.tokens[index * size : (index + 1) * size]
            node = request.nodes[-1] if request.nodes else request.root
            request.nodes.append(self.pages.enter(node, tokens, cache.pages[index]))

    def cut(self, request: Request, length: int) -> None:
        """Keep at most so many positions. A page that is known is not written again: it is let go. Mutates."""
        length = min(request.cache.length, length)
        if length < len(request.nodes) * self.page_size:
            n = length // self.page_size
            rest, length = request.cache.pages[n:], n * self.page_size
            request.cache.hold(request.cache.pages[:n])
            self.pages.drop(rest)
            del request.nodes[n:]
        request.cache.keep(length)

    def release(self, request: Request) -> None:
        """Take all pages of a request back. Mutates."""
        self.settle(request)
        self.pages.drop(request.cache.pages)
        request.cache, request.nodes = self.new_cache(), []

    def _n_pages(self, n: int) -> int:
        return -(-n // self.page_size)


def fitting_positions(model: Model, least: int, share: float = 0.25) -> int:
    """Positions whose keys and values fill this share of the memory that is free now, but `least` in any case."""
    return max(int(share * _free_bytes(model.device)) * SLOTS // model.new_pool(SLOTS).n_bytes, least)


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # a system that does not tell
        return 1 << 32
