"""Modes as they are spelled, and the ranges of a plan."""

from typing import Any

import pytest

from tests.fakes import tiny_config
from trimode.decoding import OWN_MODES
from trimode.errors import InvalidInput
from trimode.evaluation.plan import SWEEP, Plan, bound_sizes, parse_mode, specs, split_modes

CONFIG = tiny_config()


def test_values_have_the_types_of_the_decoders_own_fields() -> None:
    spec = parse_mode("self_speculation:placement=linear,draft-length=16,verify_above=none,temperature=1")
    assert spec.mode == "self_speculation"
    assert spec.options == {"placement": "linear", "draft_length": 16, "verify_above": None, "temperature": 1.0}
    assert {type(value) for value in spec.options.values()} == {str, int, type(None), float}


def test_a_mode_has_one_name_however_it_is_spelled() -> None:
    one = parse_mode("diffusion:confidence_threshold=0.80,block_size=8")
    assert one.name == parse_mode(" diffusion:block-size = 8, confidence_threshold=.8").name
    assert parse_mode(one.name) == one
    assert parse_mode("ar").name == "ar"


def test_commas_part_modes_and_options() -> None:
    text = "ar, diffusion:confidence_threshold=0.8,block_size=4,self_speculation:placement=linear"
    assert split_modes(text) == [
        "ar", "diffusion:confidence_threshold=0.8,block_size=4", "self_speculation:placement=linear"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("telepathy", "mode is 'telepathy', allowed are ar, "),
        ("ar:draft_length=3", "draft_length is not a parameter of mode 'ar'"),
        ("diffusion:confidence_threshold=high", "confidence_threshold is 'high', allowed is a number"),
        ("self_speculation:draft_length=2.5", "draft_length is '2.5', allowed is a whole number"),
        ("self_speculation:draft_length=0", "draft_length is 0, allowed is 1 to 1024"),
        ("diffusion:block_size", "'block_size' is not name=value"),
        ("diffusion:block_size=1,block_size=2", "'block_size=2' is there twice"),
        ("ar:logit_bias=4", "logit_bias cannot be given with a mode"),
    ],
)
def test_what_no_mode_can_be_is_said_before_anything_runs(text: str, sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        specs(Plan(modes=("ar", text)), CONFIG)


def test_a_bound_has_the_checkpoints_block_size_or_those_asked_for_within_the_context() -> None:
    assert bound_sizes(Plan(), CONFIG) == (8,)
    assert bound_sizes(Plan(block_sizes=(1, 256)), CONFIG) == (1, 256)
    with pytest.raises(InvalidInput, match="a block size of the NELBO is 257, allowed is 1 to 256"):
        bound_sizes(Plan(block_sizes=(4, 257)), CONFIG)


def test_without_modes_every_one_the_checkpoint_has_is_run() -> None:
    assert [spec.name for spec in specs(Plan(), CONFIG)] == list(OWN_MODES)
    causal = [spec.name for spec in specs(Plan(), tiny_config(mask_token_id=None))]
    assert causal == [mode for mode in OWN_MODES if mode not in ("diffusion", "self_speculation")]


def test_the_sweep_is_diffusion_at_every_threshold_and_no_setting_is_run_twice() -> None:
    names = [spec.name for spec in specs(Plan(modes=("ar", "ar", "diffusion"), threshold_sweep=True), CONFIG)]
    assert names == ["ar", "diffusion", *(f"diffusion:confidence_threshold={value}" for value in SWEEP)]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tasks": ()}, "no task"),
        ({"limit": 0}, "limit is 0"),
        ({"batch": 0}, "batch is 0"),
        ({"repeats": 0}, "repeats is 0"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"block_sizes": (0,)}, "block_sizes is"),
    ],
)
def test_a_plan_refuses_what_is_out_of_range(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        Plan(**changes)


@pytest.mark.parametrize("name", ["tasks", "modes"])
def test_one_name_is_no_list_of_letters(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"{name} is 'json', allowed is a tuple"):
        Plan(**{name: "json"})  # type: ignore[arg-type]
