"""Two processes that each hold half of every weight train as one that holds all of it."""

from typing import Any

import pytest
import torch

from tests.training.stand_ins import ALONE, parts
from tests.training.two_processes import CASES, case, run_two
from trimode.training.parallel import joined


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run_two(tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def one() -> dict[str, Any]:
    return {name: case(name, ALONE) for name in CASES}


@pytest.mark.medium
@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_as_one(two: dict[str, Any], one: dict[str, Any], name: str) -> None:
    alone, shared = one[name], two[name]
    assert shared["loss"] == pytest.approx(alone["loss"], abs=1e-5)
    assert shared["norm"] == pytest.approx(alone["norm"], rel=1e-4)
    assert shared["tokens"] == alone["tokens"]
    assert shared["heldout"] == pytest.approx(alone["heldout"], abs=1e-5)


@pytest.mark.medium
@pytest.mark.parametrize("name", CASES)
def test_the_gradient_of_two_processes_is_that_of_one(two: dict[str, Any], one: dict[str, Any], name: str) -> None:
    alone, shared = one[name]["gradient"], two[name]["gradient"]
    assert shared.keys() == alone.keys()
    for weight, gradient in alone.items():
        torch.testing.assert_close(shared[weight], gradient, atol=1e-6, rtol=1e-4)


@pytest.mark.medium
def test_muon_refuses_parts_of_matrices(two: dict[str, Any]) -> None:
    assert "needs whole matrices on one process" in two["muon"]


def test_without_torchrun_a_run_is_one_process_with_whole_weights() -> None:
    with joined("cpu") as world:
        assert (world.rank, world.size, world.mesh) == (0, 1, None)
        assert world.total([1.0, 2.5]) == [1.0, 2.5]
    assert all(type(weight) is torch.nn.Parameter for weight in parts().trained.parameters())
