"""Safetensors in and out: byte-equal round trips, and every damaged folder is refused in one sentence."""

import json
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models.checkpoints import FIELDS, random_state, refuses, shapes, write, write_config
from trimode.errors import CheckpointError
from trimode.models.checkpoint import load_model, save_model

SHARD = "12KB"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
Q = "encoder.layers.1.self_attn.q_proj.weight"


def shard_of(folder: Path, tensor: str) -> Path:
    return folder / json.loads((folder / INDEX).read_text())["weight_map"][tensor]


def edit_index(folder: Path, edit: Callable[[dict[str, str]], object]) -> None:
    index = json.loads((folder / INDEX).read_text())
    edit(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("max_shard", ["5GB", SHARD])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float16"])
def test_load_and_save_give_the_same_bytes(dtype: str, max_shard: str, tied: bool, tmp_path: Path) -> None:
    folder = write(tmp_path / "in", max_shard, dtype=dtype, tie_word_embeddings=tied)
    fields = json.loads((folder / "config.json").read_text())
    save_model(load_model(folder), fields, tmp_path / "out", max_shard)
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(names) > 5 or max_shard != SHARD
    for name in names:
        mine, original = (tmp_path / "out" / name).read_bytes(), (folder / name).read_bytes()
        assert mine == original if name != INDEX else json.loads(mine) == json.loads(original), name


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_every_stored_value_arrives_where_its_name_says(dtype: str, tmp_path: Path) -> None:
    state = random_state()
    model = load_model(write(tmp_path, state=state), dtype)
    layer = model.layers[1]
    own = "encoder.layers.1."
    expected = {
        "qkv": torch.cat([state[f"{own}self_attn.{x}_proj.weight"] for x in "qkv"]),
        "out": state[f"{own}self_attn.o_proj.weight"],
        "gate_up": torch.cat([state[f"{own}mlp.{x}_proj.weight"] for x in ("gate", "up")]),
        "down": state[f"{own}mlp.down_proj.weight"],
        "input_norm": state[f"{own}input_layernorm.weight"],
        "post_norm": state[f"{own}post_attention_layernorm.weight"],
    }
    for name, weight in expected.items():
        assert torch.equal(getattr(layer, name), weight.to(getattr(torch, dtype))), name
    assert torch.equal(model.head, state["diffusion_head.weight"].to(model.dtype))


def test_shards_and_a_single_file_load_alike(tmp_path: Path) -> None:
    single, sharded = (load_model(write(tmp_path / size, size)) for size in ("5GB", SHARD))
    assert not (tmp_path / SHARD / SINGLE).exists()
    for (name, one), (_, other) in zip(single.named_parameters(), sharded.named_parameters(), strict=True):
        assert torch.equal(one, other), name


def test_a_loaded_model_does_not_change_when_its_file_does(tmp_path: Path) -> None:
    model = load_model(write(tmp_path, dtype="float32"))
    before = model.norm.clone()
    with (tmp_path / SINGLE).open("r+b") as file:
        file.seek(2000)
        file.write(b"\xff" * 10_000)
    assert torch.equal(model.norm, before)


@pytest.mark.parametrize("tensor", ["encoder.norm.weight", Q, "diffusion_head.weight"])
@pytest.mark.parametrize("max_shard", ["5GB", SHARD])
def test_a_missing_tensor_is_named(max_shard: str, tensor: str, tmp_path: Path) -> None:
    state = random_state()
    del state[tensor]
    write(tmp_path, max_shard, state)
    with refuses(CheckpointError, tensor, tmp_path):
        load_model(tmp_path)


@pytest.mark.parametrize("max_shard", ["5GB", SHARD])
def test_an_extra_tensor_is_named(max_shard: str, tmp_path: Path) -> None:
    write(tmp_path, max_shard, random_state() | {"encoder.layers.3.self_attn.k_scale": torch.ones(1)})
    with refuses(CheckpointError, "encoder.layers.3.self_attn.k_scale", tmp_path):
        load_model(tmp_path)


@pytest.mark.parametrize("shape", [(24, 32), (31, 24), (33, 24), (32, 24, 1), (768,), (), (0,), (1, 24), (32, 1)])
@pytest.mark.parametrize("max_shard", ["5GB", SHARD])
def test_a_misshapen_tensor_is_named_with_both_shapes(max_shard: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    write(tmp_path, max_shard, random_state() | {Q: torch.ones(shape)})
    file = shard_of(tmp_path, Q) if max_shard == SHARD else tmp_path / SINGLE
    with refuses(CheckpointError, Q, file, list(shape), [32, 24]):
        load_model(tmp_path)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.bool])
def test_a_tensor_that_is_not_of_a_float_type_is_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    write(tmp_path, state=random_state() | {Q: torch.ones(32, 24, dtype=dtype)})  # packed weights are not weights
    with refuses(CheckpointError, Q, tmp_path / SINGLE):
        load_model(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write(tmp_path, SHARD)
    path = shard_of(tmp_path, Q)
    path.unlink()
    with refuses(CheckpointError, path):
        load_model(tmp_path)


def test_an_index_that_places_a_tensor_in_the_wrong_shard_is_refused(tmp_path: Path) -> None:
    write(tmp_path, SHARD)
    other = shard_of(tmp_path, "encoder.embed_tokens.weight").name
    edit_index(tmp_path, lambda weight_map: weight_map.update({Q: other}))
    with refuses(CheckpointError, Q):
        load_model(tmp_path)


def test_an_index_that_names_a_tensor_no_shard_holds_is_refused(tmp_path: Path) -> None:
    write(tmp_path, SHARD)
    path = shard_of(tmp_path, Q)
    edit_index(tmp_path, lambda weight_map: weight_map.update({"encoder.nowhere.weight": path.name}))
    with refuses(CheckpointError, "encoder.nowhere.weight", path):
        load_model(tmp_path)


def test_an_index_that_leaves_out_a_tensor_of_a_shard_is_refused(tmp_path: Path) -> None:
    write(tmp_path, SHARD)
    path = shard_of(tmp_path, Q)
    edit_index(tmp_path, lambda weight_map: weight_map.pop(Q))
    with refuses(CheckpointError, Q, path):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "..", ".", "", "a/b.safetensors", "x\0y", 5, None])
def test_a_shard_name_that_is_not_a_file_of_the_folder_is_refused(name: object, tmp_path: Path) -> None:
    folder = write(tmp_path / "in", SHARD)
    save_file({Q: torch.ones(32, 24)}, tmp_path / "x.safetensors")
    edit_index(folder, lambda weight_map: weight_map.update({Q: name}))  # type: ignore[dict-item]
    with refuses(CheckpointError, folder):
        load_model(folder)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"{}", b"null", b"5", b'{"weight_map": []}', b'{"weight_map": null}', b'{"weight_map": 1}',
     b"\xff\xfe", b"[" * 100_000],
    ids=lambda text: text[:16].decode("latin-1") or "empty",
)  # fmt: skip
def test_a_damaged_index_is_refused(text: bytes, tmp_path: Path) -> None:
    write(tmp_path, SHARD)
    (tmp_path / INDEX).write_bytes(text)
    with refuses(CheckpointError, tmp_path / INDEX):
        load_model(tmp_path)


def test_an_empty_index_is_refused_with_the_missing_tensors(tmp_path: Path) -> None:
    write(tmp_path, SHARD)
    edit_index(tmp_path, lambda weight_map: weight_map.clear())
    with refuses(CheckpointError, tmp_path, f"{len(shapes())} tensors"):
        load_model(tmp_path)


@pytest.mark.parametrize("max_shard", ["5GB", SHARD])
@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 100, -5000, -1])
def test_a_truncated_file_is_named(size: int, max_shard: str, tmp_path: Path) -> None:
    write(tmp_path, max_shard)
    path = shard_of(tmp_path, Q) if max_shard == SHARD else tmp_path / SINGLE
    data = path.read_bytes()
    path.write_bytes(data[:size])
    with refuses(CheckpointError, path):
        load_model(tmp_path)


HEADERS = {
    "header-too-long": struct.pack("<Q", 1 << 60) + b"{}",
    "header-not-json": struct.pack("<Q", 5) + b"hello",
    "offsets-outside": struct.pack("<Q", 62)
    + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'.ljust(62) + b"1",
    "offsets-overlap-shape": struct.pack("<Q", 62)
    + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}'.ljust(62) + b"1234",
    "noise": bytes(range(256)) * 40,
    "text": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
}  # fmt: skip


@pytest.mark.parametrize("data", HEADERS.values(), ids=HEADERS)
def test_a_file_that_is_not_safetensors_is_named(data: bytes, tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / SINGLE).write_bytes(data)
    with refuses(CheckpointError, tmp_path / SINGLE):
        load_model(tmp_path)


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    write_config(tmp_path, FIELDS)
    (tmp_path / SINGLE).mkdir()
    with refuses(CheckpointError, tmp_path / SINGLE):
        load_model(tmp_path)


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("place", ["pytorch_model.bin", SINGLE, "indexed"])
def test_a_pickle_is_never_read(place: str, tmp_path: Path) -> None:
    folder, trace = tmp_path / "in", tmp_path / "executed"
    write_config(folder, FIELDS)
    file = "pytorch_model.bin" if place == "indexed" else place
    torch.save({name: Bomb(trace) for name in shapes()}, folder / file)
    (folder / "pytorch_model.pkl").write_bytes(pickle.dumps(Bomb(trace)))
    if place == "indexed":
        (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(shapes(), file)}))
    with refuses(CheckpointError, SINGLE if place == "pytorch_model.bin" else folder / file):
        load_model(folder)
    assert not trace.exists()


CHILD = """
import sys
from pathlib import Path
from trimode.models.checkpoint import load_model

def resident(field):  # bytes of this program alone; getrusage would hold its parent's peak, from before exec
    return int(Path("/proc/self/status").read_text().split(field)[1].split()[0]) * 1024

warm, folder = load_model(Path(sys.argv[1])), Path(sys.argv[2])
Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
before = resident("VmRSS:")
model = load_model(folder, "bfloat16")
size = sum(p.numel() * p.element_size() for p in model.parameters())
print((resident("VmHWM:") - before) / size)
"""


@pytest.mark.medium
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures with Linux's /proc")
@pytest.mark.parametrize("max_shard", ["5GB", "40MB"])
def test_loading_takes_about_one_copy_of_the_weights(max_shard: str, tmp_path: Path) -> None:
    small, large = write(tmp_path / "small"), tmp_path / "large"
    rows = 32 * 2**20 // (2 * 24)  # two matrices of 32 MB, nearly all of the model
    ones = torch.ones(rows, 24, dtype=torch.bfloat16)
    state = random_state() | {"encoder.embed_tokens.weight": ones, "diffusion_head.weight": ones.clone()}
    write(large, max_shard, state, vocab_size=rows)
    command = [sys.executable, "-c", CHILD, str(small), str(large)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    for path in large.glob("*.safetensors"):
        path.unlink()
    assert 0.9 < float(run.stdout) < 1.6  # one copy, and the largest tensor once more


def test_a_saved_file_is_readable_by_the_library_alone(tmp_path: Path) -> None:
    save_model(load_model(write(tmp_path / "in")), FIELDS, tmp_path / "out")
    stored = load_file(tmp_path / "out" / SINGLE)
    assert {name: tuple(tensor.shape) for name, tensor in stored.items()} == shapes()
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
