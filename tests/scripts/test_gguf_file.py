"""A checkpoint as GGUF: rows of query and key are reordered so that llama.cpp turns the pairs we turn."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from trimode.config import Rope
from trimode.models.checkpoint import read_config, read_json
from trimode.models.layers import rotate, rotations

pytestmark = pytest.mark.skipif(find_spec("gguf") is None, reason="gguf is not installed (pip install '.[bench]')")

HEADS, HALF, WIDTH = 3, 4, 5


def matrix() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(HEADS * 2 * HALF, WIDTH)).astype(np.float32)


@pytest.mark.medium
def test_the_order_of_rows_goes_there_and_back() -> None:
    from scripts.bench.gguf_file import half_split, interleaved

    weight = matrix()
    assert not np.array_equal(interleaved(weight, HEADS), weight)
    assert np.array_equal(half_split(interleaved(weight, HEADS), HEADS), weight)


def test_turning_neighbouring_pairs_of_the_reordered_rows_equals_turning_halves() -> None:
    from scripts.bench.gguf_file import half_split, interleaved

    x, position, theta = np.random.default_rng(1).normal(size=WIDTH).astype(np.float32), 7, 100.0
    ours = torch.from_numpy(matrix() @ x).view(1, HEADS, 2 * HALF)
    inverse = theta ** (-torch.arange(HALF) / HALF)
    cos, sin = rotations(inverse, torch.tensor([position]), Rope(theta=theta), HEADS, 0)
    expected = rotate(ours, cos, sin).reshape(-1, 1).numpy()
    pairs = (interleaved(matrix(), HEADS) @ x).reshape(HEADS, HALF, 2)
    turned = (pairs[..., 0] + 1j * pairs[..., 1]) * np.exp(1j * position * inverse.numpy())
    theirs = np.stack([turned.real, turned.imag], -1).reshape(-1, 1)
    np.testing.assert_allclose(half_split(theirs, HEADS), expected, atol=1e-5)


def test_every_tensor_is_written_under_its_name_and_reads_back(tmp_path: Path) -> None:
    import gguf

    from scripts.bench.gguf_file import renamed, write
    from tests.models.checkpoints import random_state
    from tests.models.checkpoints import write as write_checkpoint

    config = read_config(write_checkpoint(tmp_path / "in"))
    state = random_state()
    write(tmp_path / "f32.gguf", config, state, "f32")
    read = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tmp_path / "f32.gguf").tensors}
    assert set(read) == {renamed(name) for name in state}
    for name in ("encoder.layers.2.mlp.down_proj.weight", "encoder.norm.weight", "diffusion_head.weight"):
        assert np.array_equal(read[renamed(name)], state[name].float().numpy()), name


@pytest.mark.medium
def test_heads_with_a_norm_are_written_as_qwen3_in_the_order_they_have(tmp_path: Path) -> None:
    from scripts.bench.gguf_file import architecture, arrays
    from scripts.bench.reference import reference
    from tests.models import families

    family = families.FAMILIES["qwen3"]
    model = families.reference(family)
    folder = families.write(model, family, tmp_path)
    config, state = read_config(folder), model.state_dict()
    found = dict(arrays(config, state))
    assert architecture(config) == "qwen3"
    assert np.array_equal(found["blk.0.attn_k.weight"], state["model.layers.0.self_attn.k_proj.weight"].numpy())
    assert "blk.0.attn_q_norm.weight" in found
    again = reference(read_json(folder / "config.json"), state, torch.float32, torch.device("cpu"))
    ids = torch.arange(9)[None]
    assert torch.allclose(again(ids).logits, model(ids).logits, atol=1e-5)


def test_positions_that_the_format_does_not_know_are_refused(tmp_path: Path) -> None:
    from scripts.bench.gguf_file import complaint
    from tests.models.checkpoints import write as write_checkpoint

    plain = {"rope_type": "default", "rope_theta": 1e4}
    scaled = plain | {"llama_4_scaling_beta": 0.1, "original_max_position_embeddings": 16}
    assert "yarn" in str(complaint(read_config(write_checkpoint(tmp_path / "yarn")), 8))
    assert complaint(read_config(write_checkpoint(tmp_path / "plain", rope_parameters=plain)), 256) is None
    config = read_config(write_checkpoint(tmp_path / "scaled", rope_parameters=scaled))
    assert complaint(config, 16) is None
    assert "query scale" in str(complaint(config, 17))


@pytest.mark.medium
def test_llama_cpp_writes_our_tokens(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (pip install '.[bench]')")
    from scripts.bench.llama import llama_rows
    from scripts.bench.systems import VARIANTS, System, stored, writer
    from trimode import load
    from trimode.evaluation.tasks import example

    llm = load(dtype="float32", device="cpu")
    prompt = llm.tokenizer.encode(example("json", "heldout", 1000, 0).prompt)
    expected = writer(llm, VARIANTS["ar"])(prompt, 24).tokens
    rows = [row for row in llama_rows(llm.model.config, stored(llm.model), tmp_path, 1) if isinstance(row, System)]
    assert [row.write(prompt, 24).tokens for row in rows[:2]] == [expected, expected]  # f32 and f16
    assert len(rows) == 3
