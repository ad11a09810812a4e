"""A ModelConfig is frozen and cannot hold a geometry that does not work; `read` names what is missing or odd."""

from dataclasses import FrozenInstanceError

import pytest

from tests.fakes import tiny_config
from trimode.config import Rope, read
from trimode.errors import CheckpointError

SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "n_layers", "n_heads", "n_kv_heads", "head_dim",
    "context_length", "block_size",
)  # fmt: skip


def test_a_config_cannot_be_edited() -> None:
    with pytest.raises(FrozenInstanceError):
        tiny_config().n_layers = 3  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        Rope(theta=1e6).theta = 1.0  # type: ignore[misc]


def test_equal_fields_make_equal_and_hashable_configs() -> None:
    assert tiny_config() == tiny_config()
    assert len({tiny_config(), tiny_config(), tiny_config(n_layers=3)}) == 2


def test_the_head_size_is_a_field_of_its_own() -> None:
    config = tiny_config(hidden_size=24, n_heads=4, head_dim=8)
    assert config.head_dim * config.n_heads != config.hidden_size


@pytest.mark.parametrize("size", [0, -1])
@pytest.mark.parametrize("name", SIZES)
def test_a_size_below_one_is_refused_by_name(name: str, size: int) -> None:
    with pytest.raises(CheckpointError, match=rf"{name} is {size}, .*at least 1"):
        tiny_config(**{name: size})


@pytest.mark.parametrize(("n_heads", "n_kv_heads"), [(4, 3), (2, 4), (5, 2)])
def test_heads_that_do_not_share_key_heads_evenly_are_refused(n_heads: int, n_kv_heads: int) -> None:
    with pytest.raises(CheckpointError, match=f"{n_heads} heads .*multiple of {n_kv_heads}"):
        tiny_config(n_heads=n_heads, n_kv_heads=n_kv_heads)


def test_an_odd_head_size_is_refused_because_rotation_needs_pairs() -> None:
    with pytest.raises(CheckpointError, match="head_dim 7 must be even"):
        tiny_config(head_dim=7)


@pytest.mark.parametrize("token", [-1, 61, 131072])
def test_a_mask_id_outside_the_vocabulary_is_refused_with_the_range(token: int) -> None:
    with pytest.raises(CheckpointError, match=rf"mask_token_id is {token}, allowed is 0 to 60"):
        tiny_config(mask_token_id=token)


@pytest.mark.parametrize("tokens", [(-1,), (61,), (2, 61)])
def test_an_eos_id_outside_the_vocabulary_is_refused_with_the_range(tokens: tuple[int, ...]) -> None:
    with pytest.raises(CheckpointError, match=rf"eos_token_id is {tokens[-1]}, allowed is 0 to 60"):
        tiny_config(eos_token_ids=tokens)


@pytest.mark.parametrize("tokens", [(), (0,), (60,), (2, 11)])
def test_none_one_or_several_eos_ids_are_allowed(tokens: tuple[int, ...]) -> None:
    assert tiny_config(eos_token_ids=tokens).eos_token_ids == tokens


@pytest.mark.parametrize("missing", ["mask_token_id", "block_size"])
def test_commits_that_see_both_ways_need_a_mask_and_a_block(missing: str) -> None:
    with pytest.raises(CheckpointError, match=r"commit_visibility is 'block'.*mask_token_id and block_size"):
        tiny_config(commit_visibility="block", **{missing: None})


def test_shifted_canvases_need_a_mask_and_go_with_either_way_of_committing() -> None:
    for seen in ("causal", "block"):
        assert tiny_config(canvas_logits="shifted", commit_visibility=seen).canvas_logits == "shifted"
    with pytest.raises(CheckpointError, match=r"canvas_logits is 'shifted'.*mask_token_id"):
        tiny_config(canvas_logits="shifted", mask_token_id=None)
    with pytest.raises(CheckpointError, match=r"canvas_logits is 'sideways', known are own, shifted"):
        tiny_config(canvas_logits="sideways")


def test_read_returns_a_field_of_the_right_type() -> None:
    fields = {"n": 3, "x": 1e-5, "flag": True}
    assert read(fields, "n", int) == 3
    assert read(fields, "x", (int, float)) == 1e-5
    assert read(fields, "flag", bool) is True


def test_read_names_a_missing_field_and_where() -> None:
    with pytest.raises(CheckpointError, match=r"^rope_parameters: the field 'rope_theta' is missing$"):
        read({}, "rope_theta", float, "rope_parameters")


@pytest.mark.parametrize("value", ["8", 8.0, None, [8], {"n": 8}, True, False])
def test_read_refuses_another_type_and_shows_the_value(value: object) -> None:
    with pytest.raises(CheckpointError, match=r"config.json: the field 'n' is .* not of the expected type"):
        read({"n": value}, "n", int)
