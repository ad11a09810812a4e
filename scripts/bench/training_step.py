"""One joint training step, in the ways that are compared: what it is fed, what it costs on paper, its memory.

split, flex, dense   the package's own objective, with the forms of attention of `trimode/numerics/packed.py`
recomputed           split, every layer once more in the backward pass: activation checkpointing
naive                the same loss written down plainly: a float32 mask of all 2L x 2L rows, and scores over the
                     vocabulary for all 2L rows, of which those that are not scored have weight 0
"""

import ctypes
import gc
import random
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from scripts.bench.floor import matrix_size
from scripts.bench.geometry import SHAPES, fields_of
from trimode.api import BUNDLED
from trimode.config import Json, ModelConfig
from trimode.models.checkpoint import empty, family, read_json
from trimode.models.transformer import Transformer, initialise
from trimode.numerics.packed import Attention
from trimode.numerics.visibility import Masked
from trimode.spans import Canvas, Span
from trimode.training.batch import Batch, pack
from trimode.training.objectives import Joint, value
from trimode.training.samples import Sample, Target

VARIANTS = ("split", "recomputed", "flex", "dense", "naive")
FORMS: dict[str, Attention] = {
    "split": "split",
    "recomputed": "split",
    "flex": "flex",
    "dense": "dense",
    "naive": "dense",
}


def fields(size: str, n_layers: int | None) -> Json:
    """config.json of the bundled model or of a shape, with so many of its layers."""
    found = dict(fields_of(size) if size in SHAPES else read_json(BUNDLED / "config.json"))
    return found | ({} if n_layers is None else {"num_hidden_layers": n_layers})


def random_model(config: Json, dtype: torch.dtype, device: torch.device) -> Transformer:
    """Random weights that learn."""
    model = empty(family(config).parse(config, None), dtype, device)
    if device.type == "cpu":
        initialise(model, seed=0)
        return model
    with torch.no_grad():  # drawn on the device: the values do not change the time
        for weight in model.parameters():
            weight.fill_(1.0) if weight.dim() == 1 else weight.normal_(0.0, 0.02)
    return model


def sample(length: int, block: int, config: ModelConfig, seed: int = 0) -> Sample:
    """A random text of `length` tokens, all targets but the first, and one canvas per block of them, in each of which
    k ~ U{1..n} tokens are masked with weight n / k."""
    rng = random.Random(seed)
    text = tuple(rng.randrange(6, config.vocab_size) for _ in range(length))
    canvases, diffusion, row = [], [], length
    for after in range(1, length, block):
        shown = list(text[after : after + block])
        n = len(shown)
        slots = sorted(rng.sample(range(n), rng.randint(1, n)))
        for slot in slots:
            diffusion.append(Target(row=row + slot, label=shown[slot], weight=n / len(slots)))
            shown[slot] = config.mask_token_id
        canvases.append(Canvas(after=after, tokens=tuple(shown)))
        row += n
    return Sample(
        span=Span(commit=text, canvases=tuple(canvases), kind="prefill"),
        ar=tuple(Target(row=i, label=text[i + 1], weight=1.0) for i in range(length - 1)),
        diffusion=tuple(diffusion), n_diffusion=length - 1,
    )  # fmt: skip


def batch_of(samples: list[Sample], variant: str, config: ModelConfig, device: torch.device) -> Batch:
    """Every text a pack of its own, as long as it is, with the visibility of a variant."""
    rows = max(one.span.n_rows for one in samples)
    return pack([[one] for one in samples], rows, config.mask_token_id, FORMS[variant]).to(device)


def loss_of(variant: str, model: Transformer, batch: Batch) -> Callable[[], Tensor]:
    """The forward of a variant, up to the loss."""
    joint = Joint()
    if variant != "naive":
        layers = model.layers if variant == "recomputed" else ()
        return lambda: _recomputing(layers, lambda: value(joint.sums(model, batch), joint.counts(batch), joint.weights))
    given = Masked(given=batch.visibility.streams(torch.float32, model.device))
    labels_T = torch.zeros_like(batch.tokens_T)
    weights_T = torch.zeros(len(labels_T), device=model.device)
    for part, scored in (("ar", batch.ar), ("diffusion", batch.diffusion)):
        labels_T[scored.rows_S] = scored.labels_S
        weights_T[scored.rows_S] = scored.weights_S * joint.weights[part] / scored.count

    def naive() -> Tensor:
        logits_TV = model.logits(model(batch.tokens_T, batch.positions_T, given)).float()
        return (F.cross_entropy(logits_TV, labels_T, reduction="none") * weights_T).sum()

    return naive


def _recomputing(layers: Iterable[nn.Module], forward: Callable[[], Tensor]) -> Tensor:
    """forward(), in which these layers keep their inputs only. Afterwards they are as they were."""
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    loss = forward()
    for layer in layers:
        del layer.forward
    return loss


def step_of(loss: Callable[[], Tensor], optim: torch.optim.Optimizer, device: torch.device, dtype: str) -> None:
    """Forward, backward and update. Mutates the model and its optimiser."""
    with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
        total = loss()
    total.backward()
    optim.step()
    optim.zero_grad()


def step_flops(config: ModelConfig, samples: list[Sample]) -> float:
    """Multiplications and additions a step needs: 6 per weight and row, the head for scored rows alone, and 12 per
    head, channel and pair of rows of which one sees the other. What is done twice or for nothing does not count."""
    head = config.vocab_size * config.hidden_size
    n_rows = sum(one.span.n_rows for one in samples)
    n_scored = sum(len(one.ar) + len(one.diffusion) for one in samples)
    n_pairs = sum(pairs(one.span) for one in samples)
    attention = 12 * config.n_layers * config.n_heads * config.head_dim * n_pairs
    return 6.0 * ((matrix_size(config) - head) * n_rows + head * n_scored) + attention


def pairs(span: Span) -> int:
    """How many rows all rows of a causal span see together."""
    n = len(span.commit)
    return n * (n + 1) // 2 + sum(len(c.tokens) * (c.after + len(c.tokens)) for c in span.canvases)


def memory(variant: str, dtype: str, model: Transformer, length: int, block: int, streams: int) -> dict[str, int]:
    """Of a second step in this process: bytes held before, weights, gradients and optimiser among them; at the peak;
    and their difference, what a step takes. Mutates the model."""
    device = model.device
    optim = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    samples = [sample(length, block, model.config, seed) for seed in range(streams)]
    batch = batch_of(samples, variant, model.config, device)
    step_of(loss_of(variant, model, batch), optim, device, dtype)  # compiles, and fills the caches of libraries
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    _forget_peak(device)
    held = _bytes("VmRSS", device)
    step_of(loss_of(variant, model, batch), optim, device, dtype)
    most = _bytes("VmHWM", device)
    return {"held": held, "peak": most, "step": most - held}


def _forget_peak(device: torch.device) -> None:
    """Give back what is free, and start the high-water mark anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def _bytes(name: str, device: torch.device) -> int:
    """Of this process on Linux. Its own high-water mark: ru_maxrss also knows that of the process that started it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) if name == "VmHWM" else torch.cuda.memory_allocated(device)
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
