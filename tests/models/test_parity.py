"""The network equals transformers' Ministral-3: prefill, cached decode and canvases, fp32, to 1e-4."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.models.checkpoints import store
from tests.models.ministral import config_fields, reference, renamed, rope, write
from trimode.cache import Cache, KVPool
from trimode.models.checkpoint import load_model, save_model
from trimode.models.layers import inverse_frequencies
from trimode.models.transformer import Transformer
from trimode.numerics.visibility import serving, visible
from trimode.spans import Canvas, Span, layout

pytestmark = pytest.mark.medium  # importing transformers takes seconds

TOLERANCE = 1e-4
N = 41  # tokens: positions cross several multiples of 16, the original context
CASES = {
    "default-1e6": (rope("default", 1e6), False),
    "default-1e9-tied": (rope("default", 1e9), True),
    "default-scaled-queries": (rope("default", 1e6, beta=0.1), False),
    "yarn-16": (rope("yarn", 1e6, 16.0, beta=0.1), False),
    "yarn-16-1e9-tied": (rope("yarn", 1e9, 16.0, beta=0.1), True),
    "yarn-quarter": (rope("yarn", 1e6, 0.25, beta=0.1), False),
    "yarn-8-strong-scale": (rope("yarn", 1e6, 8.0, original=7, beta=1.5), False),
}


@dataclass(frozen=True)
class Pair:
    """The same weights twice."""

    theirs: "torch.nn.Module"
    ours: Transformer


@pytest.fixture(scope="module", params=CASES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    parameters, tied = CASES[request.param]
    theirs = reference(parameters, tie_word_embeddings=tied)
    folder = write(theirs, tmp_path_factory.mktemp(request.param))
    with torch.inference_mode():
        yield Pair(theirs, load_model(folder))


def tokens_of(n: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(torch.randint(4, 61, (n,), generator=torch.Generator().manual_seed(seed)).tolist())


def ours(model: Transformer, cache: Cache[KVPool], span: Span) -> Tensor:
    """Logits of every row of a span, whose commits are kept."""
    rows = layout(span)
    positions = torch.tensor([cache.length + offset for offset in rows.offsets])
    visibility = serving([span], [cache.length])
    hidden = model(torch.tensor(rows.tokens), positions, visibility, [cache])
    cache.keep(cache.length + len(span.commit))
    return model.logits(hidden)


def theirs(model: torch.nn.Module, tokens: Sequence[int], past: object, positions: Tensor, mask: Tensor) -> Tensor:
    """Logits of every row, seeing what the boolean matrix [rows, past + rows] says. Mutates the cache."""
    bias = torch.zeros(mask.shape).masked_fill(~mask, float("-inf"))[None, None]
    out = model(
        input_ids=torch.tensor([tokens]), position_ids=positions[None], attention_mask=bias, past_key_values=past,
        use_cache=past is not None,
    )  # fmt: skip
    return out.logits[0]


def prefix(model: torch.nn.Module, tokens: Sequence[int]) -> object:
    """transformers' cache of a causal prefill."""
    return model(input_ids=torch.tensor([tokens]), use_cache=True).past_key_values


def assert_close(mine: Tensor, reference: Tensor) -> None:
    assert mine.shape == reference.shape
    assert reference.std() > 0.5  # else 1e-4 would say little
    difference = (mine - reference).abs().max().item()
    assert difference <= TOLERANCE


def test_prefill_equals_transformers(pair: Pair) -> None:
    tokens = tokens_of(N)
    expected = pair.theirs(input_ids=torch.tensor([tokens])).logits[0]
    cache = pair.ours.new_cache(N)
    assert_close(ours(pair.ours, cache, Span(commit=tokens, kind="prefill")), expected)


@pytest.mark.parametrize("chunks", [(1,) * N, (17, 1, 5, 16, 2), (3, 38)], ids=["one-by-one", "mixed", "two"])
def test_cached_decode_equals_transformers(pair: Pair, chunks: tuple[int, ...]) -> None:
    tokens, past, cache = tokens_of(N), None, pair.ours.new_cache(N)
    start = 0
    for size in chunks:
        piece = tokens[start : start + size]
        start += size
        out = pair.theirs(input_ids=torch.tensor([piece]), past_key_values=past, use_cache=True)
        past = out.past_key_values
        assert_close(ours(pair.ours, cache, Span(commit=piece, kind="decode")), out.logits[0])
    assert start == N == cache.length


@pytest.mark.parametrize("n_past", [0, 5, 30])
def test_a_bidirectional_block_on_a_cached_prefix_equals_transformers(pair: Pair, n_past: int) -> None:
    tokens, block = tokens_of(N)[:n_past], (9, 3, 3, 17, 3, 3, 3, 3)
    past, cache = None, pair.ours.new_cache(N)
    if n_past:
        past = prefix(pair.theirs, tokens)
        ours(pair.ours, cache, Span(commit=tokens, kind="prefill"))
    everything = torch.ones(len(block), n_past + len(block), dtype=torch.bool)
    expected = theirs(pair.theirs, block, past, n_past + torch.arange(len(block)), everything)
    span = Span(commit=(), kind="denoise", canvases=(Canvas(after=0, tokens=block),))
    assert_close(ours(pair.ours, cache, span), expected)
    assert_close(ours(pair.ours, cache, span), expected)  # the first look has left nothing behind


def test_commits_and_canvases_in_one_forward_equal_transformers(pair: Pair) -> None:
    n_past, tokens = 14, tokens_of(N)
    past, cache = prefix(pair.theirs, tokens[:n_past]), pair.ours.new_cache(N)
    ours(pair.ours, cache, Span(commit=tokens[:n_past], kind="prefill"))
    canvases = (Canvas(after=2, tokens=(3, 3, 3)), Canvas(after=4, tokens=(3, 11, 3, 3)))
    span = Span(commit=tokens[n_past : n_past + 4], kind="commit", canvases=canvases)
    commits = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1], *[[1, 1, 0, 0]] * 3, *[[1, 1, 1, 1]] * 4]
    own = [[0] * 7] * 4 + [[1] * 3 + [0] * 4] * 3 + [[0] * 3 + [1] * 4] * 4
    matrix = torch.tensor([x + y for x, y in zip(commits, own, strict=True)], dtype=torch.bool)
    assert torch.equal(visible([span]), matrix)
    mask = torch.cat([torch.ones(len(matrix), n_past, dtype=torch.bool), matrix], 1)
    positions = n_past + torch.tensor([0, 1, 2, 3, 2, 3, 4, 4, 5, 6, 7])
    expected = theirs(pair.theirs, layout(span).tokens, past, positions, mask)
    assert_close(ours(pair.ours, cache, span), expected)


@pytest.mark.parametrize("theta", [1e6, 1e9])
@pytest.mark.parametrize("factor", [0.25, 8.0, 16.0])
def test_the_angles_of_the_released_geometry_equal_transformers(theta: float, factor: float, tmp_path: Path) -> None:
    model = reference(rope("yarn", theta, factor, 16384, 0.1), head_dim=128, num_hidden_layers=1)
    assert model.model.rotary_emb.attention_scaling == 1.0  # mscale == mscale_all_dim
    mine = load_model(write(model, tmp_path)).config
    torch.testing.assert_close(inverse_frequencies(mine.rope, 128), model.model.rotary_emb.inv_freq, rtol=1e-6, atol=0)


def test_positions_spread_over_a_long_context_equal_transformers(tmp_path: Path) -> None:
    model = reference(rope("yarn", 1e9, 16.0, 16384, 0.1), head_dim=128, max_position_embeddings=262144)
    mine, tokens = load_model(write(model, tmp_path)), tokens_of(8)
    positions = torch.tensor([0, 1, 16383, 16384, 70_001, 131_072, 200_003, 262_143])
    with torch.inference_mode():
        expected = theirs(model, tokens, None, positions, torch.ones(8, 8, dtype=torch.bool).tril())
        visibility = serving([Span(commit=tokens, kind="prefill")], [0])
        assert_close(mine.logits(mine(torch.tensor(tokens), positions, visibility)), expected)


def test_a_tied_model_may_store_its_head_as_well(tmp_path: Path) -> None:
    model = reference(rope("yarn", 1e6, 16.0, beta=0.1), tie_word_embeddings=True)
    folder, tokens = write(model, tmp_path), tokens_of(9)
    store(renamed(model.state_dict() | {"lm_head.weight": model.lm_head.weight.detach().clone()}), folder)
    mine = load_model(folder)
    with torch.inference_mode():
        logits = ours(mine, mine.new_cache(9), Span(commit=tokens, kind="prefill"))
        assert_close(logits, model(input_ids=torch.tensor([tokens])).logits[0])


@pytest.mark.parametrize("max_shard", ["5GB", "12KB"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_export_equals_what_transformers_would_write_byte_for_byte(dtype: str, max_shard: str, tmp_path: Path) -> None:
    model = reference(rope("yarn", 1e6, 16.0, beta=0.1))
    folder = write(model, tmp_path / "in", dtype, max_shard)
    save_model(load_model(folder), config_fields(model, dtype), tmp_path / "out", max_shard)
    files = [sorted(path.name for path in x.glob("*.safetensors")) for x in (folder, tmp_path / "out")]
    assert files[0] == files[1]
    assert len(files[0]) > 3 or max_shard == "5GB"
    for name in files[0]:
        assert (folder / name).read_bytes() == (tmp_path / "out" / name).read_bytes(), name
