"""The calculator against what can be counted (parameters, pairs, FLOPs, bytes kept) and against published runs."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tests.fakes import MASK, tiny_config
from trimode.config import ModelConfig
from trimode.errors import InvalidInput
from trimode.models.checkpoint import empty, read_config
from trimode.models.transformer import Transformer, initialise
from trimode.numerics.losses import weighted_cross_entropy
from trimode.numerics.visibility import visible
from trimode.spans import Canvas, Span
from trimode.training.batch import Batch, pack
from trimode.training.load import Load, Parameters, count, flops, memory, pairs, saved, stage_load
from trimode.training.plan import GPUS, Machine, Plan, duration, machine, plan, table
from trimode.training.samples import Sample, Target

ROOT = Path(__file__).resolve().parents[2]
AR, JOINT = Load(steps=476_837, noised=0), Load(steps=143_051)  # 1 T and 300 B tokens at 512 x 4096
H100 = GPUS["h100"][0]


def published(size: str) -> ModelConfig:
    return read_config(ROOT / "recipes" / "published" / size)


def llama(**changes: int) -> ModelConfig:
    """Llama 3.1 8B; other sizes by what differs."""
    fields = dict(vocab_size=128256, hidden_size=4096, intermediate_size=14336, n_layers=32, n_heads=32, n_kv_heads=8)
    return tiny_config(**fields, head_dim=128) if not changes else tiny_config(**(fields | changes), head_dim=128)


def one_text(config: ModelConfig, text: int, gpus: int = 1, micro: int = 1) -> Plan:
    """A plain autoregressive step of `micro` texts on every GPU."""
    return plan(config, Load(streams=gpus * micro, micro=micro, clean=text, noised=0), Machine(gpus=gpus))


def whole_attention(planned: Plan) -> float:
    """FLOPs per token as most publications count them: as if attention were not causal."""
    return (sum(planned.flops.values()) + planned.flops["attention"]) / planned.tokens_per_step


@pytest.mark.medium
@pytest.mark.parametrize(("size", "billions"), [("3b", 3.83), ("8b", 8.49), ("14b", 13.51)])
def test_parameters_are_those_of_the_published_models(size: str, billions: float) -> None:
    assert round(count(published(size)).total / 1e9, 2) == billions


# NeMo Framework 24.12, performance summary: tokens per second and model TFLOP/s, both per GPU.
NEMO = {
    "LLAMA2-7B": (llama(vocab_size=32000, intermediate_size=11008, n_kv_heads=32), 4096, 16934, 780),
    "LLAMA3-8B": (llama(), 8192, 12273, 711),
    "LLAMA3-70B": (llama(hidden_size=8192, intermediate_size=28672, n_layers=80, n_heads=64), 8192, 1524, 734),
}


@pytest.mark.parametrize("name", NEMO)
def test_flops_per_token_are_those_of_published_throughputs(name: str) -> None:
    config, text, tokens, teraflops = NEMO[name]
    assert whole_attention(one_text(config, text)) == pytest.approx(teraflops * 1e12 / tokens, rel=0.001)


@pytest.mark.parametrize(("tokens_per_second", "utilisation"), [(5762, 0.33), (6667, 0.39)])
def test_utilisation_is_that_of_published_fsdp_runs(tokens_per_second: int, utilisation: float) -> None:
    """torchtitan, 2024-12: Llama 3.1 8B, FSDP on 8 H100, 2 x 8192 tokens each, without and with compile."""
    reached = tokens_per_second * whole_attention(one_text(llama(), 8192, gpus=8, micro=2)) / H100
    assert reached == pytest.approx(utilisation, abs=0.01)


@pytest.mark.parametrize(("on_8", "on_128"), [(82.4, 67.0), (77.0, 62.0)])
def test_more_gpus_save_the_memory_they_saved_in_published_fsdp_runs(on_8: float, on_128: float) -> None:
    """torchtitan, 2024-12: the same, GiB per GPU on 8 and on 128; what differs is the share of the sharded state."""
    few, many = (sum(one_text(llama(), 8192, gpus=gpus, micro=2).memory.values()) for gpus in (8, 128))
    assert (few - many) / 2**30 == pytest.approx(on_8 - on_128, rel=0.1)


def step(clean: int, block: int, masked: int) -> tuple[Load, Span, Batch]:
    """One text with a canvas over every block, `masked` slots of each scored."""
    text = tuple(4 + i % 50 for i in range(clean))
    canvases = tuple(Canvas(after=i, tokens=(MASK,) * block) for i in range(0, clean, block))
    span = Span(commit=text, canvases=canvases, kind="prefill")
    scored = tuple(
        Target(row=clean + i + k, label=5, weight=1.0) for i in range(0, clean, block) for k in range(masked)
    )
    ar = tuple(Target(row=i, label=5, weight=1.0) for i in range(clean))
    load = Load(streams=1, clean=clean, noised=clean, block_size=block, masked=masked / block, precision="float32")
    sample = Sample(span=span, ar=ar, diffusion=scored, n_diffusion=clean)
    return load, span, pack([[sample]], span.n_rows, MASK)


def test_pairs_are_those_the_rule_allows() -> None:
    load, span, _ = step(96, 16, 4)
    assert pairs(load) == int(visible([span]).sum())


def some_model(config: ModelConfig) -> Transformer:
    model = empty(config, torch.float32, torch.device("cpu"))
    initialise(model, 0)
    return model


def loss(model: Transformer, batch: Batch) -> Tensor:
    hidden = model(batch.tokens_T, batch.positions_T, batch.visibility)
    parts = (batch.ar, batch.diffusion)
    return sum((weighted_cross_entropy(hidden[p.rows_S], p.labels_S, p.weights_S, model.logits) for p in parts),
               torch.zeros(()))  # fmt: skip


@pytest.mark.medium
def test_flops_are_those_a_step_does() -> None:
    """Matrix products counted as they run. The head's come again in its recomputation, and once less for the loss of
    a gradient nobody wants."""
    config, (load, _, batch) = tiny_config(vocab_size=256, n_layers=3), step(96, 16, 4)
    model, computed = some_model(config), flops(config, load, count(config))
    with FlopCounterMode(display=False) as counter:
        loss(model, batch).backward()
    products = counter.get_flop_counts()["Global"]
    did = sum(value for operation, value in products.items() if "mm" in str(operation))
    assert did == computed["layers"] + computed["head"] * 4 / 3


WIDE: dict[str, object] = dict(hidden_size=64, intermediate_size=160)
CONFIGS = {"plain": WIDE, "normed heads": WIDE | {"qk_norm": True}}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_a_row_keeps_is_what_autograd_keeps(name: str, precision: str) -> None:
    """Per layer. Left out of the formula: one number per norm, and copies of the angles."""
    _, span, batch = step(96, 16, 4)
    load, half = Load(checkpointing=False, precision=precision), precision == "bfloat16"
    few, many = (tiny_config(**CONFIGS[name], n_layers=n) for n in (1, 3))
    kept = bytes_kept(some_model(many), batch, half) - bytes_kept(some_model(few), batch, half)
    assert kept / span.n_rows == pytest.approx(saved(many, load, 4) - saved(few, load, 4), rel=0.05)


def bytes_kept(model: Transformer, batch: Batch, is_half: bool) -> int:
    """Storages saved for the backward pass that have a row for every row of the batch."""
    found: dict[int, tuple[int, Tensor]] = {}
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    n = len(batch.tokens_T)

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and n in tensor.shape and tensor.shape[-2:] != (n, n):
            found[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autocast("cpu", torch.bfloat16, enabled=is_half), torch.autograd.graph.saved_tensors_hooks(keep, id_of):
        model(batch.tokens_T, batch.positions_T, batch.visibility)
    return sum(size for size, _ in found.values())


def id_of(tensor: Tensor) -> Tensor:
    return tensor


def test_weights_gradients_and_moments_take_the_bytes_of_their_tensors() -> None:
    config, (load, _, batch) = tiny_config(), step(32, 16, 4)
    model = some_model(config)
    optim = torch.optim.AdamW(model.parameters())
    loss(model, batch).backward()
    optim.step()
    moments = [x for state in optim.state.values() for x in state.values() if x.dim()]
    computed = memory(config, load, 1, count(config))
    assert computed["weights"] == sum(weight.nbytes for weight in model.parameters())
    assert computed["gradients"] == sum(weight.grad.nbytes for weight in model.parameters() if weight.grad is not None)
    assert computed["moments"] == sum(x.nbytes for x in moments)


def test_an_adapter_needs_no_moments_for_the_frozen_rest_and_a_third_less_arithmetic() -> None:
    config = published("8b")
    adapter, full = (plan(config, Load(trained=trained), Machine(gpus=8)) for trained in (35_650_000, None))
    assert adapter.memory["moments"] < 0.01 * full.memory["moments"]
    assert adapter.flops["layers"] / full.flops["layers"] == pytest.approx(2 / 3, rel=0.01)


def stage(kind: str, rows: int, **noise: object) -> SimpleNamespace:
    drawn = dict(block_sizes=(16, 32), scheme="block", all_masked_share=0.0, views=1, drafts=False) | noise
    return SimpleNamespace(kind=kind, steps=7, rows=rows, streams=8, micro=2, precision="float32",
                           activation_checkpointing=False, noise=SimpleNamespace(**drawn))  # fmt: skip


@pytest.mark.parametrize(
    ("of", "clean", "noised", "masked"),
    [
        (stage("ar", 1000), 1000, 0, 33 / 64),
        (stage("joint", 1000), 500, 500, 33 / 64),
        (stage("joint", 1000, scheme="sequence"), 500, 500, 0.5),
        (stage("joint", 1000, all_masked_share=0.2), 500, 500, 0.2 + 0.8 * 33 / 64),
        (stage("sft", 900, views=2), 300, 600, 0.5),
        (stage("drafter", 1000, drafts=True), 500, 500, 1.0),
        (stage("drafter", 1000), 500, 500, 1.0),
    ],
    ids=["ar", "joint", "sequence", "all masked", "two views", "drafter", "drafter by its kind"],
)
def test_a_stage_asks_for_full_packs_of_targets(of: SimpleNamespace, clean: int, noised: int, masked: float) -> None:
    load = stage_load(of)
    assert (load.clean, load.noised, load.masked) == (clean, noised, pytest.approx(masked))
    assert (load.steps, load.streams, load.micro, load.precision) == (7, 8, 2, "float32")
    assert (load.block_size, load.checkpointing, load.rows) == (32, False, of.rows)


def test_checkpointing_keeps_one_row_per_layer() -> None:
    config = published("8b")
    light, heavy = (saved(config, Load(checkpointing=on), 2) for on in (True, False))
    assert heavy > 10 * light
    assert light > config.n_layers * config.hidden_size * 2


def test_a_machine_is_read_from_the_flag() -> None:
    assert machine("gpus=256") == Machine(gpus=256)
    assert machine("gpu=a100, mfu=0.5 gpus=8") == Machine(gpus=8, gpu="a100", mfu=0.5)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("gpus=0", "gpus is 0, allowed is at least 1"),
        ("gpu=v100", "gpu is 'v100', allowed are a100, h100, h200"),
        ("mfu=2", "mfu is 2.0, allowed is above 0.0 and at most 1.0"),
        ("gpus=many", "--plan has 'gpus=many', which is not a number"),
        ("nodes=3", "--plan has 'nodes=3', allowed are gpus=..., gpu=..., mfu=..."),
    ],
)
def test_a_wrong_machine_is_one_sentence(text: str, why: str) -> None:
    with pytest.raises(InvalidInput) as error:
        machine(text)
    assert str(error.value) == why


def test_streams_that_do_not_divide_are_refused() -> None:
    with pytest.raises(InvalidInput, match="512 streams per step do not divide by 96 processes x 1 at a time"):
        plan(published("3b"), JOINT, Machine(gpus=96))


def test_the_table_says_what_it_is_and_when_nothing_fits() -> None:
    text = table(plan(published("14b"), Load(checkpointing=False), Machine(gpus=8)))
    assert text.endswith("(computed, not measured)")
    assert "does not fit: more GPUs, fewer rows at a time, or activation_checkpointing" in text
    assert "does not fit" not in table(plan(published("14b"), JOINT, Machine(gpus=8)))


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5.0 seconds"), (150, "2.5 minutes"), (7200, "2.0 hours"), (1e6, "11.6 days")]
)
def test_a_duration_has_the_unit_a_person_would_choose(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def row(size: str, gpus: int) -> str:
    """A line of the table in docs/scaling.md."""
    config, on = published(size), Machine(gpus=gpus)
    ar, joint, whole = plan(config, AR, on), plan(config, JOINT, on), plan(config, Load(checkpointing=False), on)
    gigabytes = [sum(each.memory.values()) / 1e9 for each in (joint, whole)]
    days = [each.seconds / 86400 for each in (ar, joint)]
    hours = sum(days) * 24 * gpus
    cells = [size.upper(), gpus, joint.accumulation, *(f"{x:.0f}" for x in gigabytes), *(f"{x:.1f}" for x in days),
             f"{sum(days):.1f}", f"{hours:,.0f}"]  # fmt: skip
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


@pytest.mark.parametrize("size", ["3b", "8b", "14b"])
@pytest.mark.parametrize("gpus", [8, 64, 256])
def test_the_table_of_the_docs_is_computed(size: str, gpus: int) -> None:
    assert row(size, gpus) in (ROOT / "docs" / "scaling.md").read_text("utf-8")


def test_what_stands_outside_the_layers_is_embedding_head_and_norm() -> None:
    config = published("8b")
    assert count(config) == Parameters(
        total=8_489_553_920, layer=218_112_000, outside=2 * config.vocab_size * config.hidden_size + config.hidden_size
    )
