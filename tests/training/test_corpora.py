"""Windows share out a text's targets without loss, and their sizes are those of their documents."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.procedural import ProceduralCorpus
from trimode.errors import InvalidInput
from trimode.training.corpora import Windows
from trimode.training.documents import Document


def text(first: int, n: int) -> Document:
    """Tokens that tell where they stand: first, first + 1, ..."""
    return Document.text(tuple(range(first, first + n)))


def corpus(documents: list[Document]) -> ProceduralCorpus:
    return ProceduralCorpus(len(documents), documents.__getitem__, "these")


MIXED = [
    text(0, 10),
    Document(tokens=tuple(range(100, 110)), answers=((3, 5), (7, 10))),
    text(200, 2),
    Document(tokens=tuple(range(300, 304)), answers=((2, 4),)),
    Document(tokens=tuple(range(400, 410)), answers=((0, 9),), hole=(0, 9)),  # as many targets as a text has
]


@given(st.lists(st.integers(2, 60), min_size=1, max_size=8), st.integers(2, 20))
def test_every_target_of_a_text_is_a_target_of_exactly_one_window(lengths: list[int], most: int) -> None:
    """The token before each target stands in its window, and so does the last of all: an end of text is learned."""
    windows = Windows(corpus([text(1000 * i, n) for i, n in enumerate(lengths)]), most)
    learned = []
    for i in range(len(windows)):
        document = windows.document(i)
        assert len(document.tokens) <= most
        assert all(b == a + 1 for a, b in pairwise(document.tokens))
        ((start, stop),) = document.answers
        assert (start, stop) == (1, len(document.tokens))
        learned += document.tokens[start:stop]
    assert learned == [1000 * i + j for i, n in enumerate(lengths) for j in range(1, n)]


@pytest.mark.parametrize("most", [2, 3, 4, 9, 10, 11])
def test_sizes_and_flags_are_those_of_the_documents(most: int) -> None:
    windows = Windows(corpus(MIXED), most)
    documents = [windows.document(i) for i in range(len(windows))]
    assert windows.sizes().tolist() == [[len(d.tokens), d.n_targets, len(d.answers)] for d in documents]
    assert windows.cuttable().tolist() == [d.answers == ((1, len(d.tokens)),) and d.hole is None for d in documents]


def test_what_is_no_text_is_whole_or_left_out() -> None:
    windows = Windows(corpus(MIXED), 9)
    assert windows.too_long.tolist() == [1, 4]
    assert [windows.place(i) for i in range(len(windows))] == [f"document {i}" for i in (0, 0, 2, 3)]
    assert [windows.document(i) for i in (2, 3)] == [MIXED[2], MIXED[3]]


def test_more_than_length_may_leave_a_document_out() -> None:
    windows = Windows(corpus(MIXED), 20, np.array([True, False, True, True, True]))
    assert windows.too_long.tolist() == [1]
    assert len(windows) == 4


def test_the_fingerprint_follows_the_corpus_and_the_length() -> None:
    other = ProceduralCorpus(5, MIXED.__getitem__, "others")
    assert len({Windows(whole, most).fingerprint for whole in (corpus(MIXED), other) for most in (9, 10)}) == 4


def test_windows_of_one_token_are_refused() -> None:
    with pytest.raises(InvalidInput, match="max_tokens is 1, allowed is at least 2"):
        Windows(corpus(MIXED), 1)
