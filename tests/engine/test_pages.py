"""Pages: nobody's page is given away, what is known is found exactly, and memory stays within its limit."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from trimode.engine.pages import Pages

ROOT = "root"


def entered(pages: Pages, tokens: list[int], held: list[int]) -> None:
    """Say that the pages hold these tokens from the first on."""
    node: Any = ROOT
    for index, page in enumerate(held[: len(tokens) // pages.size]):
        node = pages.enter(node, tokens[index * pages.size : (index + 1) * pages.size], page)


def test_pages_stand_in_order_where_they_can() -> None:
    pages = Pages(4)
    first, second = pages.take(3), pages.take(2)
    assert (first, second) == ([0, 1, 2], [3, 4])
    pages.drop(first)
    assert pages.take(1, after=4) == [0] and pages.take(1, after=0) == [1]
    assert pages.take(2, after=1) == [2, 5]


def test_a_text_is_found_as_far_as_whole_pages_of_it_are_known() -> None:
    pages = Pages(4, limit=9)
    text, held = list(range(10)), pages.take(3)
    entered(pages, text, held)
    assert pages.find(ROOT, text, 10)[0] == held[:2]
    assert pages.find(ROOT, text, 7)[0] == held[:1]
    assert pages.find(ROOT, [*text[:5], 99, *text[6:]], 10)[0] == held[:1]
    assert pages.find("another root", text, 10)[0] == []
    assert pages.find(ROOT, text[4:], 6)[0] == []  # the same tokens elsewhere are not the same


def test_what_is_let_go_is_found_until_its_place_is_needed() -> None:
    pages = Pages(2, limit=4)
    for text in ([1, 2, 3, 4], [5, 6, 7, 8]):
        held = pages.take(2)
        entered(pages, text, held)
        pages.drop(held)
    assert (pages.n_held, pages.n_known, pages.n_available, pages.n_empty) == (0, 4, 4, 0)
    new = pages.take(1)
    kept, _ = pages.find(ROOT, [1, 2, 3, 4], 4)
    assert len(kept) == 1 and not set(kept) & set(new)  # the end of the older text went first
    both, _ = pages.find(ROOT, [5, 6, 7, 8], 4)
    assert len(both) == 2
    assert pages.n_available == 0 and pages.take(1) == [4]  # beyond the limit, for who insists


def test_two_that_compute_the_same_keep_their_own_and_the_first_is_known() -> None:
    pages = Pages(2, limit=8)
    first, second = pages.take(2), pages.take(2)
    for held in (first, second):
        entered(pages, [1, 2, 3, 4], held)
    pages.drop(first)
    pages.drop(second)
    assert pages.find(ROOT, [1, 2, 3, 4], 4)[0] == first
    assert pages.n_empty == 6


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 3)), max_size=60), st.integers(1, 12))
def test_pages_are_conserved_whatever_happens(orders: list[tuple[int, int, int]], limit: int) -> None:
    """Texts over two letters, so that many begin alike; each holder keeps the pages it was given or found."""
    pages, holders = Pages(2, limit=limit), list[tuple[list[int], list[int]]]()
    for what, n, which in orders:
        if what == 0 or not holders:
            text = [(n >> i) & 1 for i in range(6)]
            found, _ = pages.find(ROOT, text, 5)
            if 3 - len(found) > pages.n_available:
                pages.drop(found)
                continue
            held = found + pages.take(3 - len(found), found[-1] if found else None)
            entered(pages, text, held)
            holders.append((text, held))
        elif what == 1:
            pages.drop(holders.pop(which % len(holders))[1])
        else:
            text, held = holders[which % len(holders)]
            again, _ = pages.find(ROOT, text, 6)
            assert len(again) >= sum(1 for _ in again)
            pages.drop(again)
        counts = [page for _, held in holders for page in held]
        assert pages.n_held == len(set(counts)) <= limit
        owners = {page: {tuple(text[: 2 * held.index(page) + 2]) for text, held in holders if page in held}
                  for page in counts}  # fmt: skip
        assert all(len(texts) == 1 for texts in owners.values())  # who shares a page shares its text
    for _, held in holders:
        pages.drop(held)
    assert pages.n_held == 0 and pages.n_available == limit
    assert pages.n_known <= limit
