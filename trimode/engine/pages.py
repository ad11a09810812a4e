"""Who holds which page of a pool, and which pages hold known beginnings of texts. Integers only; no tensor, no request.

A page that is full of final tokens can be entered under its tokens and the page before it, so that a text is found page
by page and exactly: nothing is hashed that could be mistaken for something else. Whoever is given a page holds it; a
known page that nobody holds stays until its place is needed, the one that was let go first goes first.
"""

from collections import Counter, OrderedDict
from collections.abc import Hashable, Sequence
from heapq import heappop, heappush
from itertools import count
from math import inf

Node = Hashable  # a known beginning of texts: a root, or what `enter` has returned


class Pages:
    """Pages 0, 1, 2, ... of `size` positions each. Beyond `limit` of them only where the caller insists."""

    def __init__(self, size: int, limit: int | None = None) -> None:
        self.size, self.limit = size, limit
        self._n_made = 0
        self._free: list[int] = []  # a heap, so that low pages are used again first
        self._is_free: set[int] = set()
        self._held: Counter[int] = Counter()
        self._idle: OrderedDict[int, None] = OrderedDict()  # known, held by nobody; the oldest first
        self._known: dict[tuple[Node, tuple[int, ...]], tuple[int, Node]] = {}
        self._key: dict[int, tuple[Node, tuple[int, ...]]] = {}
        self._nodes = count()

    @property
    def n_held(self) -> int:
        """Pages that somebody holds, each once."""
        return len(self._held)

    @property
    def n_known(self) -> int:
        return len(self._known)

    @property
    def n_empty(self) -> float:
        """Pages that can be taken while nothing known is forgotten."""
        return inf if self.limit is None else max(self.limit - self._n_made, 0) + len(self._is_free)

    @property
    def n_available(self) -> float:
        """Pages that can be taken within the limit."""
        return inf if self.limit is None else max(self.limit - self.n_held, 0)

    def take(self, n: int, after: int | None = None) -> list[int]:
        """Hold n more, each behind the one before if that is free: `after` stands before the first. Mutates.

        Where the limit is reached, known pages are forgotten; where there are none, the limit is overstepped.
        """
        taken: list[int] = []
        for _ in range(n):
            after = self._next(after)
            self._held[after] = 1
            taken.append(after)
        return taken

    def drop(self, pages: Sequence[int]) -> None:
        """Hold each once less; the last pages of a text first, so that its beginning stays longest. Mutates."""
        for page in reversed(pages):
            self._held[page] -= 1
            if self._held[page]:
                continue
            del self._held[page]
            if page in self._key:
                self._idle[page] = None
            else:
                self._release(page)

    def find(self, root: Node, tokens: Sequence[int], n: int) -> tuple[list[int], list[Node]]:
        """Hold the known pages that begin the first n tokens of a text; with the node behind each. Mutates."""
        node, pages, nodes = root, list[int](), list[Node]()
        for start in range(0, n - self.size + 1, self.size):
            found = self._known.get((node, tuple(tokens[start : start + self.size])))
            if found is None:
                break
            page, node = found
            pages.append(page)
            nodes.append(node)
        for page in pages:
            self._held[page] += 1
            self._idle.pop(page, None)
        return pages, nodes

    def enter(self, node: Node, tokens: Sequence[int], page: int) -> Node:
        """Say that a page holds these tokens behind a known beginning; the node behind it. Mutates.

        Where another page holds the same, that one stays known.
        """
        key = (node, tuple(tokens))
        if key not in self._known:
            self._known[key] = page, next(self._nodes)
            self._key[page] = key
        return self._known[key][1]

    def _next(self, after: int | None) -> int:
        wanted = None if after is None else after + 1
        if wanted in self._is_free:
            assert wanted is not None
            self._is_free.remove(wanted)
            return wanted
        while self._free:
            page = heappop(self._free)
            if page in self._is_free:
                self._is_free.remove(page)
                return page
        if self._idle and self.limit is not None and self._n_made >= self.limit:
            return self._forgotten()
        self._n_made += 1
        return self._n_made - 1

    def _forgotten(self) -> int:
        """The known page that was let go first, known no more."""
        page, _ = self._idle.popitem(last=False)
        del self._known[self._key.pop(page)]
        return page

    def _release(self, page: int) -> None:
        self._is_free.add(page)
        heappush(self._free, page)
