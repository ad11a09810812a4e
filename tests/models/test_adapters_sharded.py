"""An adapted model trains under FSDP2 as it does without: the adapter is a child of the root, the base is frozen."""

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from tests.models.test_adapters import CONFIG, fresh, sample
from trimode.models.adapters import Adapted, Adapter
from trimode.training.batch import Batch, pack
from trimode.training.objectives import Joint, value

pytestmark = pytest.mark.medium


@pytest.fixture
def group() -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def steps(model: Adapted, batch: Batch) -> list[float]:
    """The loss of a few steps."""
    optim = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.03)
    found, objective = [], Joint()
    for _ in range(3):
        loss = value(objective.sums(model, batch), objective.counts(batch), objective.weights)
        loss.backward()
        optim.step()
        optim.zero_grad()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("draft", [False, True])
def test_sharded_training_is_plain_training(draft: bool, group: None) -> None:
    plain = Adapted(fresh(), Adapter.new(CONFIG, 4, 8.0, draft=draft))
    sharded, before = copy.deepcopy(plain), copy.deepcopy(plain.model.state_dict())
    for layer in sharded.model.layers:
        fully_shard(layer)
    fully_shard(sharded)
    batch = pack([[sample()]], 24, 3)
    assert steps(sharded, batch) == pytest.approx(steps(plain, batch), rel=1e-6)
    copied = sharded.adapter.gathered()
    for name, tensor in plain.adapter.named().items():
        assert not isinstance(copied.named()[name], DTensor)
        torch.testing.assert_close(copied.named()[name], tensor, atol=1e-6, rtol=1e-5)
    ours, theirs = dict(sharded.named_parameters()), dict(plain.named_parameters())
    for name, parameter in ours.items():
        assert isinstance(parameter, DTensor)
        assert parameter.requires_grad == name.startswith("adapter.")
        torch.testing.assert_close(parameter.full_tensor(), theirs[name], atol=1e-6, rtol=1e-5)
        if name.startswith("model."):
            assert torch.equal(parameter.full_tensor(), before[name.removeprefix("model.")])
