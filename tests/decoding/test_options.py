"""A decoder is built from the table of modes with its parameters checked by name."""

from dataclasses import FrozenInstanceError

import pytest

from tests.fakes import VARIANTS, decoder, tiny_config
from trimode.cost import FLAT, NATIVE_FLOAT32
from trimode.decoding import DEFAULT_MODE, MODES, build, default_mode, options
from trimode.decoding.self_speculation import PLACEMENTS
from trimode.errors import InvalidInput

CONFIG = tiny_config()


def test_every_mode_stands_in_the_parametrised_tests() -> None:
    assert {mode for mode, _ in VARIANTS.values()} == set(MODES)
    assert DEFAULT_MODE in MODES


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_decoder_is_a_frozen_value(variant: str) -> None:
    assert decoder(variant, CONFIG) == decoder(variant, CONFIG)
    with pytest.raises((FrozenInstanceError, AttributeError, TypeError)):
        decoder(variant, CONFIG).mode = "other"


@pytest.mark.parametrize("mode", MODES)
def test_planning_twice_plans_the_same(mode: str) -> None:
    built = build(mode, CONFIG)
    state = built.start([4, 5, 6], 30)
    assert built.plan(state, [4, 5, 6], 0, 99) == built.plan(state, [4, 5, 6], 0, 99)


def test_the_block_size_is_the_checkpoints_by_default() -> None:
    for mode in ("diffusion", "self_speculation"):
        assert build(mode, tiny_config(block_size=13)).block_size == 13
        assert build(mode, tiny_config(block_size=13), block_size=4).block_size == 4


@pytest.mark.parametrize("mode", MODES)
def test_every_option_has_a_help_text(mode: str) -> None:
    assert all(item.metadata["help"] for item in options(mode).values())


@pytest.mark.parametrize(
    ("mode", "chosen", "allowed"),
    [
        ("diffusion", dict(block_size=0), "1 to 1024"),
        ("diffusion", dict(block_size=-3), "1 to 1024"),
        ("diffusion", dict(block_size=True), "1 to 1024"),
        ("diffusion", dict(block_size="8"), "1 to 1024"),
        ("diffusion", dict(block_size=2.5), "1 to 1024"),
        ("diffusion", dict(confidence_threshold=-0.1), "at least 0"),
        ("diffusion", dict(confidence_threshold=float("nan")), "at least 0"),
        ("diffusion", dict(max_denoising_steps=0), "at least 1"),
        ("diffusion", dict(max_denoising_steps=1.5), "at least 1"),
        ("diffusion", dict(anchor="seeded"), "fused, canvas, none"),
        ("diffusion", dict(anchor=None), "fused, canvas, none"),
        ("diffusion", dict(rule="argmax"), "threshold, margin, entropy"),
        ("diffusion", dict(slots_per_look=0), "at least 1"),
        ("diffusion", dict(factor=-1.0), "at least 0"),
        ("diffusion", dict(remask="all"), "none, low_confidence"),
        ("diffusion", dict(remask_below=1.1), "0.0 to 1.0"),
        ("diffusion", dict(ar_weight=-0.1), "0.0 to 1.0"),
        ("self_speculation", dict(block_size=0), "1 to 1024"),
        ("self_speculation", dict(draft_length=0), "1 to 1024"),
        ("self_speculation", dict(draft_length=3.5), "1 to 1024"),
        ("self_speculation", dict(fallback_below=-1), "0.0 to 1024.0"),
        ("self_speculation", dict(fallback_below=float("nan")), "0.0 to 1024.0"),
        ("self_speculation", dict(fallback_below="3"), "0.0 to 1024.0"),
        ("self_speculation", dict(placement="cubic"), "linear, chained, pruned, quadratic"),
        ("self_speculation", dict(max_canvases=0), "at least 1"),
        ("self_speculation", dict(max_canvases=None), "at least 1"),
        ("self_speculation", dict(draft_threshold=-0.1), "at least 0"),
        ("self_speculation", dict(draft_threshold=None), "at least 0"),
        ("self_speculation", dict(verify_above=1.1), "0.0 to 1.0"),
        ("self_speculation", dict(verify_above=-0.1), "0.0 to 1.0"),
        ("self_speculation", dict(lookup_length=-1), "at least 0"),
        ("self_speculation", dict(lookup_length=2.0), "at least 0"),
        ("self_speculation", dict(anchor="fused"), "committed, canvas"),
        ("prompt_lookup", dict(lookup_length=0), "at least 1"),
        ("prompt_lookup", dict(lookup_length=None), "at least 1"),
        ("prompt_lookup", dict(lookup_length=2.5), "at least 1"),
    ],
)
def test_a_value_out_of_range_is_refused_with_name_and_range(
    mode: str, chosen: dict[str, object], allowed: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        build(mode, CONFIG, **chosen)
    (name,) = chosen
    assert name in str(refused.value)
    assert allowed in str(refused.value)


def test_none_is_refused_where_it_means_nothing() -> None:
    for mode, name in (("diffusion", "block_size"), ("self_speculation", "lookup_length")):
        with pytest.raises(InvalidInput, match=name):
            build(mode, CONFIG, **{name: None})


@pytest.mark.parametrize("name", ["draft_length", "verify_above", "fallback_below"])
def test_what_the_cost_model_or_the_acceptance_can_decide_may_be_none(name: str) -> None:
    assert build("self_speculation", CONFIG, **{name: None}) == build("self_speculation", CONFIG)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_only_a_linear_draft_may_hold_its_anchor(placement: str) -> None:
    options = dict(anchor="canvas", placement=placement)
    if placement == "linear":
        assert build("self_speculation", CONFIG, **options).anchor == "canvas"
    else:
        with pytest.raises(InvalidInput, match=f"anchor is 'canvas'.*linear.*{placement}"):
            build("self_speculation", CONFIG, **options)


def test_the_cost_model_of_the_network_is_the_decoders() -> None:
    assert build("self_speculation", CONFIG).cost == FLAT
    assert build("self_speculation", CONFIG, NATIVE_FLOAT32).cost == NATIVE_FLOAT32
    assert build("ar", CONFIG, NATIVE_FLOAT32) == build("ar", CONFIG)


def test_a_parameter_of_another_mode_is_refused_with_those_of_this_one() -> None:
    with pytest.raises(InvalidInput, match=r"draft_length.*'diffusion'.*block_size.*anchor"):
        build("diffusion", CONFIG, draft_length=4)
    with pytest.raises(InvalidInput, match=r"confidence_threshold.*'self_speculation'.*draft_length"):
        build("self_speculation", CONFIG, confidence_threshold=0.5)
    with pytest.raises(InvalidInput, match=r"block_size.*'ar'.*none"):
        build("ar", CONFIG, block_size=4)


@pytest.mark.parametrize("name", ["mask_token_id", "eos_token_ids"])
def test_the_checkpoints_own_ids_are_no_options(name: str) -> None:
    with pytest.raises(InvalidInput, match=name):
        build("diffusion", CONFIG, **{name: 5})


@pytest.mark.parametrize("mode", ["AR", "linearspec", "", None, 3])
def test_an_unknown_mode_is_refused_with_the_known_ones(mode: object) -> None:
    with pytest.raises(InvalidInput, match=r"mode is .*allowed are ar, diffusion, self_speculation"):
        build(mode, CONFIG)  # type: ignore[arg-type]


def test_an_ordinary_causal_checkpoint_writes_in_the_modes_without_a_mask() -> None:
    config = tiny_config(model_type="qwen3", mask_token_id=None, block_size=None)
    assert default_mode(config) == "ar"
    assert build("ar", config).mode == "ar"
    assert build("prompt_lookup", config) == build("prompt_lookup", CONFIG)
    for mode in MODES.keys() - {"ar", "prompt_lookup", "auto"}:
        with pytest.raises(InvalidInput, match=rf"mode '{mode}' needs a mask.*qwen3.*'ar' and 'prompt_lookup'.*conver"):
            build(mode, config)
    assert default_mode(CONFIG) == DEFAULT_MODE


def test_without_a_block_size_the_modes_have_their_own() -> None:
    assert build("diffusion", tiny_config(block_size=None)).block_size == 32
