"""One server process and one model for all tests of a module."""

from collections.abc import Iterator

import pytest

from tests.server.processes import Server, serving
from trimode.api import LLM, load


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as found:
        yield found


@pytest.fixture(scope="module")
def llm() -> LLM:
    return load(backend="torch")
