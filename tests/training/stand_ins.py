"""Three short texts as a feed, a tiny stage, and the parts of a run without files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.fakes import MASK, tiny_config
from trimode.models.checkpoint import empty
from trimode.models.transformer import Transformer, initialise
from trimode.numerics.noise import Noise
from trimode.training.batch import Batch, pack
from trimode.training.documents import Document, Special
from trimode.training.metrics import Silent
from trimode.training.objectives import Joint
from trimode.training.optim import optimizers
from trimode.training.parallel import Root, World, shard, spread
from trimode.training.recipe import Stage
from trimode.training.samples import make_sample
from trimode.training.trainer import Parts

NOISE = Noise(block_sizes=(4, 8), all_masked_share=0.5)
TEXTS = [
    Document.text((10, 20, 30, 40, 50, 21, 22, 23, 2)),
    Document.text((11, 33, 31, 35, 31, 37, 2)),
    Document.text((12, 5, 5, 6, 6, 7, 7, 8, 8, 2), 3),
]
STAGE = Stage(
    name="tiny", steps=5, rows=48, streams=2, learning_rate=0.02, warmup=2, precision="float32", spike=0.0,
    noise=NOISE, log_every=1, save_every=1000, weight_decay=0.0,
)  # fmt: skip
ALONE = World(rank=0, size=1, device=torch.device("cpu"))


@dataclass(frozen=True)
class Feed:
    """Sample i is text i modulo `texts`, one to a stream; `silent` streams have no targets at all."""

    noise: Noise | None = NOISE
    streams: int = 2
    rows: int = 48
    texts: int = 3
    silent: tuple[int, ...] = ()

    def batches(self, step: int, *, rank: int = 0, world: int = 1, micro: int = 1) -> list[Batch]:
        share = self.streams // world
        mine = [self._sample(step, stream) for stream in range(rank * share, (rank + 1) * share)]
        return [pack([[s] for s in mine[i : i + micro]], self.rows, MASK) for i in range(0, share, micro)]

    def _sample(self, step: int, stream: int) -> Any:
        index = step * self.streams + stream
        document = TEXTS[index % self.texts]
        if stream in self.silent:
            document = Document(tokens=document.tokens, answers=())
        return make_sample(document, self.noise, Special(mask_token_id=MASK), f"0:{index}", index)

    def epoch(self, step: int) -> float:
        return step * self.streams / self.texts

    def samples(self, step: int) -> tuple[int, ...]:
        return tuple(range(step * self.streams, (step + 1) * self.streams))


@dataclass
class Lines(Silent):
    """Metrics in a list."""

    lines: list[dict[str, float]] = field(default_factory=list)

    def log(self, line: Mapping[str, float]) -> None:
        self.lines.append(dict(line))

    def of(self, name: str) -> list[float]:
        return [line[name] for line in self.lines]


@dataclass
class Saves:
    """Checkpoints in a list: the facts of each."""

    facts: list[Mapping[str, Any]] = field(default_factory=list)

    def save(
        self, step: int, model: nn.Module, optims: Sequence[torch.optim.Optimizer], facts: Mapping[str, Any]
    ) -> Path:
        self.facts.append({**facts, "step": step})
        return Path(f"step-{step:08d}")


def fresh_model(seed: int = 0, **config: Any) -> Transformer:
    model = empty(replace(tiny_config(), **config), torch.float32, torch.device("cpu"))
    initialise(model, seed)
    return model


def parts(stage: Stage = STAGE, feed: Any = None, world: World = ALONE, weight: float = 1.0, **config: Any) -> Parts:
    """A fresh model in a world, ready to train; `config` varies the tiny geometry."""
    model = fresh_model(**config)
    whole = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    root = Root(model, Joint(weights={"ar": 1.0, "diffusion": weight}))
    if world.mesh is not None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(float("nan"))  # every value must come from rank 0
        shard(root, list(model.layers), world, stage.precision)
        spread(model, whole if world.rank == 0 else None, world)
    return Parts(
        root=root, trained=model, optims=optimizers(dict(model.named_parameters()), stage),
        feed=feed or Feed(streams=stage.streams, rows=stage.rows), heldout=None, checkpoints=Saves(), metrics=Lines(),
        world=world, facts={"seed": 0},
    )  # fmt: skip
