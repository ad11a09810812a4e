"""Every family's network equals transformers' to 1e-4 in fp32, and what is saved is what was loaded, byte for byte."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.fakes import VARIANTS, decoder, drain
from tests.models.families import FAMILIES, LLAMA3, PLAIN, SCALED, YARN, Family, reference, write
from tests.models.test_parity import Pair, assert_close, ours, tokens_of
from trimode.decoding import build
from trimode.engine.engine import Engine
from trimode.models.checkpoint import export, load_model, read_config
from trimode.models.layers import inverse_frequencies
from trimode.models.native import NativeTransformer, reason_against
from trimode.models.rope import parse_rope
from trimode.models.transformer import initialise
from trimode.spans import Canvas, Span

pytestmark = pytest.mark.medium  # importing transformers takes seconds

N = 41  # tokens: positions pass the original contexts of 16 and 32


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    theirs = reference(FAMILIES[request.param])
    folder = write(theirs, FAMILIES[request.param], tmp_path_factory.mktemp(request.param))
    with torch.inference_mode():
        yield Pair(theirs, load_model(folder))


def test_prefill_equals_transformers(pair: Pair) -> None:
    tokens = tokens_of(N)
    expected = pair.theirs(input_ids=torch.tensor([tokens])).logits[0]
    assert_close(ours(pair.ours, pair.ours.new_cache(N), Span(commit=tokens, kind="prefill")), expected)


def test_cached_decode_equals_transformers(pair: Pair) -> None:
    tokens, past, cache = tokens_of(N), None, pair.ours.new_cache(N)
    for start, stop in ((0, 17), (17, 18), (18, 19), (19, N)):
        piece = tokens[start:stop]
        out = pair.theirs(input_ids=torch.tensor([piece]), past_key_values=past, use_cache=True)
        past = out.past_key_values
        assert_close(ours(pair.ours, cache, Span(commit=piece, kind="decode")), out.logits[0])


def test_angles_equal_those_of_transformers(pair: Pair) -> None:
    theirs, rope = pair.theirs.model.rotary_emb, pair.ours.config.rope
    angles = inverse_frequencies(rope, pair.ours.config.head_dim)
    torch.testing.assert_close(angles, theirs.inv_freq, rtol=1e-6, atol=0)
    assert rope.attention_factor == pytest.approx(theirs.attention_scaling, rel=1e-12)


def test_ar_writes_what_transformers_generates(pair: Pair) -> None:
    config = pair.ours.config
    if config.commit_visibility == "block":
        return
    expected = pair.theirs.generate(torch.tensor([tokens_of(9)]), max_new_tokens=20, do_sample=False, pad_token_id=0)
    engine = Engine(pair.ours)
    request = engine.submit(tokens_of(9), build("ar", config), max_tokens=20)
    drain(engine)
    assert request.answer == tuple(expected[0, 9:].tolist())


@pytest.mark.parametrize("name", ["ministral3", "mistral", "llama-bias", "qwen2", "qwen3"])
def test_with_a_mask_every_family_writes_in_every_mode(name: str, tmp_path: Path) -> None:
    family = replace(FAMILIES[name], own={"mask_token_id": 3, "block_size": 8})
    model = load_model(write(reference(family), family, tmp_path))
    engine = Engine(model)
    requests = {v: engine.submit(tokens_of(9), decoder(v, model.config), max_tokens=30) for v in VARIANTS}
    drain(engine)
    others = ("self_speculation", "draft of 3", "prompt_lookup")
    assert {requests[v].answer for v in others} == {requests["ar"].answer}
    assert all(request.finish for request in requests.values())


@pytest.mark.parametrize("max_shard", ["5GB", "9KB"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_round_trip_gives_the_same_bytes(name: str, max_shard: str, tmp_path: Path) -> None:
    folder = write(reference(FAMILIES[name]), FAMILIES[name], tmp_path / "in", max_shard)
    export(load_model(folder), folder, tmp_path / "out", max_shard)
    files = [sorted(path.name for path in x.iterdir()) for x in (folder, tmp_path / "out")]
    assert files[0] == files[1]
    assert len(files[0]) > 3 or max_shard == "5GB"
    for file in files[0]:
        if file != "model.safetensors.index.json":
            assert (folder / file).read_bytes() == (tmp_path / "out" / file).read_bytes(), file
    maps = [json.loads((x / "model.safetensors.index.json").read_text())["weight_map"]
            for x in (folder, tmp_path / "out") if max_shard != "5GB"]  # fmt: skip
    assert all(one == maps[0] for one in maps)


@pytest.mark.parametrize("name", ["llama-bias", "qwen2", "qwen3", "sdar"])
def test_fresh_weights_have_norms_of_one_and_no_bias(name: str, tmp_path: Path) -> None:
    model = load_model(write(reference(FAMILIES[name]), FAMILIES[name], tmp_path))
    initialise(model, 0)
    vectors = {key.split(".")[-1]: weight for key, weight in model.named_parameters() if weight.dim() == 1}
    assert len(vectors) > 3
    for key, weight in vectors.items():
        assert torch.equal(weight, torch.zeros_like(weight) if "bias" in key else torch.ones_like(weight)), key


@pytest.mark.parametrize("parameters", [PLAIN, YARN, LLAMA3, SCALED, YARN | {"attention_factor": 1.3}])
def test_the_older_spelling_of_rotary_fields_means_the_same(parameters: dict[str, object]) -> None:
    scaling = {name: value for name, value in parameters.items() if name != "rope_theta"}
    theta = parameters["rope_theta"]
    new = parse_rope({"rope_parameters": parameters})
    older = {key if key != "rope_type" else "type": value for key, value in scaling.items()}
    assert parse_rope({"rope_theta": theta, "rope_scaling": scaling}) == new
    assert parse_rope({"rope_theta": theta, "rope_scaling": older}) == new
    assert parse_rope({"rope_theta": theta, "rope_parameters": scaling}) == new
    if parameters is PLAIN:
        assert parse_rope({"rope_theta": theta, "rope_scaling": None}) == new


def test_the_pair_of_bidirectional_commits_says_so(tmp_path: Path) -> None:
    for name, expected in (("sdar", ("block", "own", 4)), ("fast_dllm_v2", ("block", "shifted", 8))):
        config = read_config(write(reference(FAMILIES[name]), FAMILIES[name], tmp_path / name))
        assert (config.commit_visibility, config.canvas_logits, config.block_size) == expected
    plain = Family("Qwen3", dict(vocab_size=151936, num_hidden_layers=1, head_dim=8), {"model_type": "sdar"})
    config = read_config(write(reference(plain), plain, tmp_path / "silent"))
    assert (config.mask_token_id, config.block_size) == (151669, 4)


@pytest.mark.parametrize("name", ["qwen2-yarn-tied", "qwen3", "llama3-tied", "sdar", "fast_dllm_v2", "llama-bias"])
def test_the_native_forward_computes_the_same_or_says_why_not(name: str, tmp_path: Path) -> None:
    family = replace(FAMILIES[name], fields=FAMILIES[name].fields | dict(hidden_size=64, head_dim=16))
    model = load_model(write(reference(family), family, tmp_path))
    reason = reason_against(model)
    if name == "llama-bias":
        assert reason is not None
        assert "bias" in reason
        return
    if reason is not None:
        pytest.skip(reason)
    native, size = NativeTransformer(model), model.config.block_size or 1
    caches = model.new_cache(64), native.new_cache(64)
    commit = Span(commit=tokens_of(4 * size), block=size, kind="prefill")
    canvas = Canvas(after=2 * size, tokens=(9, 3, 3, 3))
    both = Span(commit=tokens_of(2 * size, seed=1), block=size, canvases=(canvas,), kind="commit")
    for span in (commit, both):
        assert_close(ours(native, caches[1], span), ours(model, caches[0], span))
