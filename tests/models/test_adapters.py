"""Adapters hold for the rows they are named for and no others; what does not fit is refused with the reason."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.adapters import random_adapter
from tests.fakes import lively_model, tiny_config, tiny_model
from tests.models.checkpoints import refuses
from tests.training.saves import small_disk
from trimode.errors import CheckpointError, InvalidInput, StorageError
from trimode.models.adapter_config import TARGETS
from trimode.models.adapters import Adapted, Adapter, Applied, projections
from trimode.models.merging import merge, unmerge
from trimode.models.native import NativeTransformer, reason_against
from trimode.models.transformer import Transformer
from trimode.numerics.packed import packed
from trimode.numerics.visibility import Visibility, serving
from trimode.spans import Canvas, Span, layout
from trimode.training.batch import pack
from trimode.training.drafter import Drafter
from trimode.training.objectives import Joint, Objective, value
from trimode.training.samples import Sample, Target

CONFIG = tiny_config()
MODEL = tiny_model()
SPAN = Span(
    commit=(5, 6, 7, 8, 9), kind="verify",
    canvases=(Canvas(after=2, tokens=(3, 3, 3), draft=True), Canvas(after=5, tokens=(9, 3, 3))),
)  # fmt: skip
DRAFTS, CANVAS, COMMITS = [5, 6, 7], [8, 9, 10], [0, 1, 2, 3, 4]


def rows_of(model: Any, span: Span = SPAN, visibility: Visibility | None = None, **more: Any) -> Tensor:
    spelled = layout(span)
    tokens, positions = torch.tensor(spelled.tokens), torch.tensor(spelled.offsets)
    with torch.no_grad():
        return model(tokens, positions, visibility or serving([span], [0]), **more)


def test_a_new_adapter_changes_nothing_and_is_a_function_of_its_seed() -> None:
    first, again, other = (Adapter.new(CONFIG, 4, 8.0, TARGETS, seed) for seed in (1, 1, 2))
    assert torch.equal(rows_of(MODEL), rows_of(Adapted(copy.deepcopy(MODEL), first)))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    differs = [not torch.equal(a.A, b.A) for a, b in zip(first.pairs(), other.pairs(), strict=True)]
    assert all(differs)
    for pair in first.pairs():
        assert not pair.B.any()
        bound = pair.place.inputs**-0.5  # kaiming-uniform with a = sqrt(5)
        assert 0.5 * bound < pair.A.abs().max() <= bound


@pytest.mark.parametrize("target", TARGETS)
def test_every_projection_changes_as_its_own_weight_would(target: str) -> None:
    adapter = random_adapter(CONFIG, targets=(target,))
    model = copy.deepcopy(MODEL)
    names = {p.path: p for p in projections(CONFIG)}
    for path, place in names.items():
        if path.endswith(target):
            stem = f"base_model.model.{path}.lora_"
            a, b = (adapter.named()[f"{stem}{x}.weight"] for x in "AB")
            with torch.no_grad():
                getattr(model.layers[place.layer], place.parameter)[place.start : place.stop] += 2.0 * b @ a
    expected = rows_of(model)
    assert not torch.allclose(expected, rows_of(MODEL), atol=1e-3)
    torch.testing.assert_close(rows_of(MODEL, adapters=[Applied(adapter=adapter)]), expected, atol=1e-4, rtol=1e-4)


def test_rows_that_are_not_named_keep_their_bits() -> None:
    adapter = random_adapter(CONFIG)
    plain = rows_of(MODEL)
    changed = rows_of(MODEL, adapters=[Applied(adapter=adapter, rows=torch.tensor(DRAFTS))])
    assert torch.equal(changed[COMMITS + CANVAS], plain[COMMITS + CANVAS])
    assert ((changed[DRAFTS] - plain[DRAFTS]).abs().amax(-1) > 1e-3).all()
    everywhere = rows_of(MODEL, adapters=[Applied(adapter=adapter)])
    named = rows_of(MODEL, adapters=[Applied(adapter=adapter, rows=torch.arange(SPAN.n_rows))])
    assert torch.equal(everywhere, named)
    assert torch.equal(rows_of(MODEL, adapters=[Applied(adapter=adapter, rows=torch.tensor([], dtype=int))]), plain)


def test_adapters_on_the_same_rows_add_up() -> None:
    one, other = random_adapter(CONFIG, 1), random_adapter(CONFIG, 2)
    both = rows_of(MODEL, adapters=[Applied(adapter=one), Applied(adapter=other)])
    model = copy.deepcopy(MODEL)
    merge(model, one)
    merge(model, other)
    torch.testing.assert_close(both, rows_of(model), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("training", [False, True])
def test_an_adapted_model_has_a_draft_adapter_on_the_rows_of_drafts_alone(training: bool) -> None:
    visibility = packed([[SPAN]], SPAN.n_rows) if training else serving([SPAN], [0])
    drafter = random_adapter(CONFIG, targets=("o_proj",), draft=True)
    rows = rows_of(Adapted(copy.deepcopy(MODEL), drafter), visibility=visibility)
    plain = rows_of(MODEL, visibility=visibility)
    assert torch.equal(rows[COMMITS + CANVAS], plain[COMMITS + CANVAS])
    assert ((rows[DRAFTS] - plain[DRAFTS]).abs().amax(-1) > 1e-3).all()
    domain = random_adapter(CONFIG, targets=("o_proj",))
    rows = rows_of(Adapted(copy.deepcopy(MODEL), domain), visibility=visibility)
    assert ((rows - plain).abs().amax(-1) > 1e-3).all()


def test_an_adapted_model_is_a_model() -> None:
    adapted = Adapted(copy.deepcopy(MODEL), Adapter.new(CONFIG, 2, 4.0))
    assert (adapted.config, adapted.dtype, adapted.device) == (MODEL.config, MODEL.dtype, MODEL.device)
    assert adapted.cost == MODEL.cost
    assert adapted.new_cache(9).capacity == 9
    hidden = rows_of(adapted)
    assert torch.equal(adapted.logits(hidden), MODEL.logits(hidden))
    trained = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert trained == {f"adapter.{name}" for name, _ in adapted.adapter.named_parameters()}


def test_dropout_is_for_training_alone() -> None:
    adapter = random_adapter(CONFIG, dropout=0.5)
    plain = random_adapter(CONFIG)
    adapted = Adapted(copy.deepcopy(MODEL), adapter)
    still = rows_of(adapted.eval())
    assert torch.equal(still, rows_of(MODEL, adapters=[Applied(adapter=plain)]))
    torch.manual_seed(0)
    assert not torch.allclose(rows_of(adapted.train()), still, atol=1e-3)


def test_merged_is_unmerged_and_unmerging_gives_the_weights_back() -> None:
    adapter, model = random_adapter(CONFIG), fresh()
    before = copy.deepcopy(model.state_dict())
    beside = model.logits(rows_of(model, adapters=[Applied(adapter=adapter)]))
    merge(model, adapter)
    merged = model.logits(rows_of(model))
    assert (merged - beside).abs().max() < 1e-5
    assert (merged - fresh().logits(rows_of(MODEL))).abs().max() > 0.1
    unmerge(model, adapter)
    for name, weight in model.state_dict().items():
        assert (weight - before[name]).abs().max() < 1e-6


def test_merging_refuses_what_would_not_be_the_same() -> None:
    drafter = random_adapter(CONFIG, targets=("o_proj",), draft=True, name="swift")
    with refuses(InvalidInput, "swift", "draft adapter"):
        merge(copy.deepcopy(MODEL), drafter)
    short = copy.deepcopy(MODEL).bfloat16()
    merge(short, random_adapter(CONFIG))
    with refuses(InvalidInput, "bfloat16", "float32"):
        unmerge(short, random_adapter(CONFIG))


def test_a_folder_gives_back_what_was_saved(tmp_path: Path) -> None:
    for draft in (False, True):
        saved = random_adapter(CONFIG, targets=("o_proj", "up_proj"), draft=draft, use_rslora=True, dropout=0.1)
        saved.save(tmp_path / "mine", "some/base")
        loaded = Adapter.load(tmp_path / "mine", CONFIG)
        assert loaded.settings == saved.settings
        assert (loaded.name, loaded.draft) == ("mine", draft)
        for name, tensor in saved.named().items():
            assert torch.equal(loaded.named()[name], tensor)
        assert Adapter.load(tmp_path / "mine", CONFIG, draft=True).draft
    names = load_file(tmp_path / "mine" / "adapter_model.safetensors")
    assert "base_model.model.encoder.layers.0.self_attn.o_proj.lora_A.weight" in names
    assert json.loads((tmp_path / "mine" / "adapter_config.json").read_text())["base_model_name_or_path"] == "some/base"


REFUSED = [
    ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
    ({"use_dora": True}, "use_dora is True"),
    ({"bias": "all"}, "bias is 'all'"),
    ({"lora_bias": True}, "lora_bias"),
    ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ({"layers_to_transform": [0]}, "target_modules instead"),
    ({"exclude_modules": ["q_proj"]}, "exclude_modules"),
    ({"fan_in_fan_out": True}, "fan_in_fan_out"),
    ({"a_method_of_next_year": {"x": 1}}, "a_method_of_next_year"),
    ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
    ({"target_modules": ["q_proj", "lm_head"]}, "target 'lm_head' is not a projection"),
    ({"target_modules": ["proj"]}, "target 'proj'"),
    ({"target_modules": ".*_proj"}, "target_modules is '.*_proj'"),
    ({"target_modules": []}, "targets are empty"),
    ({"target_modules": ["o_proj"]}, "2 tensors do not belong"),
    ({"target_modules": ["o_proj", "up_proj", "q_proj"]}, "4 tensors are missing"),
    ({"r": 0}, "rank is 0"),
    ({"r": 3}, "lora_A.weight has shape [4, "),
    ({"r": "4"}, "'r' is '4'"),
    ({"r": 10**13}, "rank 10000000000000"),
    ({"lora_alpha": float("nan")}, "alpha is nan"),
    ({"lora_alpha": 0}, "alpha is 0"),
    ({"lora_dropout": 1.5}, "dropout is 1.5"),
    ({"rank_pattern": {"(a+)+$": 3}}, "without signs"),
    ({"rank_pattern": {"o_proj": 0}}, "o_proj"),
    ({"alpha_pattern": {"o_proj": "x"}}, "alpha_pattern"),
    ({"alpha_pattern": {"o_proj": float("nan")}}, "o_proj the number nan"),
    ({"lora_alpha": float("inf")}, "alpha is inf"),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random_adapter(CONFIG, targets=("o_proj", "up_proj")).save(tmp_path / "adapter", "base")
    return tmp_path / "adapter"


@pytest.mark.parametrize(("changes", "sentence"), REFUSED, ids=[str(changes) for changes, _ in REFUSED])
def test_what_is_not_supported_is_refused_with_the_reason(
    changes: dict[str, object], sentence: str, folder: Path
) -> None:
    path = folder / "adapter_config.json"
    if "target_modules" in changes and sentence.startswith("2 tensors"):
        config = tiny_config(n_layers=1)
        random_adapter(config, targets=("o_proj", "up_proj")).save(folder, "base")
    else:
        config = CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with refuses(CheckpointError, sentence):
        Adapter.load(folder, config)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _integers(path: Path) -> None:
    save_file({name: tensor.to(torch.int32) for name, tensor in load_file(path).items()}, path)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [(Path.unlink, "this file is missing (pickled"), (_truncate, "damaged"), (_integers, "floating-point")],
)
def test_a_damaged_file_is_named(damage: Callable[[Path], None], sentence: str, folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    damage(path)
    with refuses(CheckpointError, path, sentence):
        Adapter.load(folder, CONFIG)


def test_a_full_disk_is_named_and_not_a_libraries_own_error(tmp_path: Path) -> None:
    folder = tmp_path / "law"
    with small_disk(1000), refuses(StorageError, folder / "adapter_model.safetensors", "could not be written"):
        random_adapter(CONFIG).save(folder, "base")


def test_how_an_adapter_began_does_not_matter_where_the_base_is_the_same(folder: Path) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"init_lora_weights": "eva", "eva_config": {"rho": 2.0}}))
    assert Adapter.load(folder, CONFIG).settings.rank == 4


def test_an_adapter_for_another_model_and_a_missing_config_are_refused(folder: Path) -> None:
    with refuses(CheckpointError, "has shape"):
        Adapter.load(folder, tiny_config(hidden_size=32))
    (folder / "adapter_config.json").unlink()
    with refuses(CheckpointError, "adapter_config.json", "missing"):
        Adapter.load(folder, CONFIG)


@pytest.mark.parametrize(("given", "sentence"), [(dict(rank=0), "rank is 0"), (dict(alpha=-1.0), "alpha is -1.0"),
                                                 (dict(alpha=float("inf")), "alpha is inf"),
                                                 (dict(targets=("lm_head",)), "'lm_head'")])  # fmt: skip
def test_a_new_adapter_checks_its_settings(given: dict[str, Any], sentence: str) -> None:
    with refuses(InvalidInput, sentence):
        Adapter.new(CONFIG, **(dict(rank=2, alpha=4.0) | given))


def test_the_native_forward_refuses_adapters() -> None:
    model = lively_model(hidden_size=32, head_dim=16)
    if (reason := reason_against(model)) is not None:
        pytest.skip(reason)
    native = NativeTransformer(model)
    with refuses(InvalidInput, "native", "torch"):
        rows_of(native, cache=[native.new_cache(32)], adapters=[Applied(adapter=random_adapter(model.config))])


def sample() -> Sample:
    """A text of 12 tokens, and two canvases over its end."""
    tokens = tuple((7 * i) % 40 + 5 for i in range(12))
    canvases = tuple(Canvas(after=after, tokens=(3,) * 4, draft=True) for after in (4, 8))
    span = Span(commit=tokens, canvases=canvases, kind="prefill")
    ar = tuple(Target(row=i - 1, label=tokens[i], weight=1.0) for i in range(1, 12))
    diffusion = tuple(Target(row=12 + i, label=tokens[4 + i], weight=1.0) for i in range(8))
    return Sample(span=span, ar=ar, diffusion=diffusion, n_diffusion=8)


def fresh() -> Transformer:
    model = copy.deepcopy(MODEL)
    with torch.no_grad():
        model.head.mul_(0.01)
    return model


def steps(adapted: Adapted, objective: Objective) -> list[dict[str, float]]:
    """Parts of the loss, step by step."""
    batch, parts = pack([[sample()]], 24, 3), []
    optim = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=0.03)
    for _ in range(12):
        sums = objective.sums(adapted, batch)
        value(sums, objective.counts(batch), objective.weights).backward()
        optim.step()
        optim.zero_grad()
        parts.append({name: part.item() for name, part in sums.items()})
    return parts


@pytest.mark.medium
@pytest.mark.parametrize("draft", [False, True])
def test_training_changes_the_adapter_alone_and_lowers_the_loss(draft: bool) -> None:
    model = fresh()
    before = copy.deepcopy(model.state_dict())
    adapted = Adapted(model, Adapter.new(CONFIG, 4, 8.0, ("o_proj",) if draft else TARGETS, draft=draft))
    first, *_, last = steps(adapted, Joint())
    assert last["diffusion"] < 0.9 * first["diffusion"]
    assert (last["ar"] == first["ar"]) if draft else (last["ar"] < 0.9 * first["ar"])
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert all(pair.B.any() for pair in adapted.adapter.pairs())


def test_a_draft_adapter_learns_what_the_verifier_would_choose() -> None:
    adapted = Adapted(fresh(), Adapter.new(CONFIG, 4, 8.0, ("o_proj",), draft=True))
    first, *_, last = steps(adapted, Drafter())
    assert last["ce"] < 0.9 * first["ce"]
