"""Documents know which of their tokens are to be learned, also after being cut or laid out anew."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import EOS
from tests.texts import MARKED, SPECIAL, documents
from trimode.training.documents import Document

HOLE = Document(tokens=(10, 11, 12, 13, 14, 15), answers=((2, 4),), hole=(2, 4))


@given(documents(), st.integers(0, 60), st.integers(0, 60))
def test_a_window_learns_what_the_document_learns_there(document: Document, a: int, b: int) -> None:
    n = len(document.tokens)
    start, stop = sorted((a % (n + 1), b % (n + 1)))
    window = document.window(start, stop)
    assert window.tokens == document.tokens[start:stop]
    learned = {i for first, last in document.answers for i in range(first, last)}
    expected = [i for i in range(start + 1, stop) if i in learned]
    assert [start + i for first, last in window.answers for i in range(first, last)] == expected
    assert window.n_targets == len(expected)


def test_a_window_keeps_a_hole_that_is_whole_in_it() -> None:
    assert HOLE.window(1, 5).hole == (1, 3)
    assert HOLE.window(0, 3).hole is None
    assert HOLE.window(2, 6).hole is None  # nothing stands before its first token any more
    assert HOLE.window(4, 6) == Document(tokens=(14, 15), answers=())


def test_a_text_is_what_has_no_prompt() -> None:
    assert Document.text((10, 11, 12)).is_text
    assert Document.text((10, 11, 12), 0).is_text
    assert Document.text((10, 11, 12)).window(1, 3).is_text
    assert not Document.text((10, 11, 12), 2).is_text
    assert not HOLE.is_text


def test_suffix_first_learns_the_middle_and_the_end() -> None:
    laid = HOLE.suffix_first(2, 4, MARKED)
    assert laid == Document.text((91, 14, 15, 90, 10, 11, 92, 12, 13, EOS), 7)
    ended = Document.text((10, 11, 12, EOS))
    assert ended.suffix_first(1, 2, MARKED) == Document.text((91, 12, 90, 10, 92, 11, EOS), 5)
    assert ended.suffix_first(1, 3, MARKED) == Document.text((91, 90, 10, 92, 11, 12, EOS), 4)
    with pytest.raises(ValueError, match="needs the markers"):
        HOLE.suffix_first(2, 4, SPECIAL)


@pytest.mark.parametrize("answers", [((3, 2),), ((0, 2), (1, 3)), ((2, 7),)])
def test_answers_are_ranges_in_order(answers: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ValueError, match="are not ranges in order within 6 tokens"):
        Document(tokens=(1, 2, 3, 4, 5, 6), answers=answers)
    with pytest.raises(ValueError, match="a hole is the only answer"):
        Document(tokens=(1, 2, 3, 4, 5, 6), answers=((1, 2), (3, 4)), hole=(1, 2))
