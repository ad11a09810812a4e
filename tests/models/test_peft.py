"""Adapters equal peft's: what it saves we load, what we save it loads, and both merge to the same weights."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.adapters import random_adapter
from tests.models.families import FAMILIES, reference, write
from trimode.models.adapter_config import TARGETS
from trimode.models.adapters import Adapter, Applied
from trimode.models.checkpoint import load_model
from trimode.models.merging import merge
from trimode.models.transformer import Transformer
from trimode.numerics.visibility import serving
from trimode.spans import Span

pytestmark = pytest.mark.medium  # importing transformers and peft takes seconds

TOKENS = tuple(torch.randint(4, 61, (30,), generator=torch.Generator().manual_seed(0)).tolist())
SETTINGS: dict[str, dict[str, Any]] = {
    "all": dict(target_modules=list(TARGETS)),
    "two": dict(target_modules=["k_proj", "down_proj"], lora_dropout=0.3),
    "rslora": dict(target_modules=["q_proj", "v_proj", "gate_proj"], use_rslora=True),
    "patterns": dict(target_modules=["q_proj", "o_proj", "up_proj"], rank_pattern={"layers.1.self_attn.q_proj": 2},
                     alpha_pattern={"up_proj": 3}),
    "some layers": dict(target_modules=["layers.0.self_attn.v_proj", "model.layers.2.mlp.up_proj"]),
}  # fmt: skip
CASES = [(family, "all") for family in ("qwen3", "llama-bias", "mistral", "ministral3", "qwen2")]
CASES += [("qwen3", settings) for settings in SETTINGS if settings != "all"]


@dataclass(frozen=True)
class Pair:
    """The same weights in both libraries, and a folder with peft's adapter."""

    theirs: Any
    ours: Transformer
    folder: Path


def adapted(model: Any, **settings: Any) -> Any:
    """With random matrices A and B."""
    import peft

    torch.manual_seed(0)
    return peft.get_peft_model(
        model, peft.LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, task_type="CAUSAL_LM", **settings)
    ).eval()


@pytest.fixture(scope="module", params=CASES, ids=["-".join(case) for case in CASES])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    name, settings = request.param
    folder = tmp_path_factory.mktemp(name)
    model = reference(FAMILIES[name])
    write(model, FAMILIES[name], folder / "base")
    model.name_or_path = ""  # peft would look for it on the Hub
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about settings of transformers, not ours
        theirs = adapted(model, **SETTINGS[settings])
        theirs.save_pretrained(folder / "adapter")
        with torch.inference_mode():
            yield Pair(theirs, load_model(folder / "base"), folder / "adapter")


def logits(model: Transformer, adapter: Adapter | None = None) -> Tensor:
    visibility = serving([Span(commit=TOKENS, kind="prefill")], [0])
    adapters = [] if adapter is None else [Applied(adapter=adapter.eval())]
    return model.logits(model(torch.tensor(TOKENS), torch.arange(len(TOKENS)), visibility, adapters=adapters))


def their_logits(model: Any) -> Tensor:
    return model(input_ids=torch.tensor([TOKENS])).logits[0]


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_their_adapter_gives_the_same_logits_here(pair: Pair) -> None:
    adapter = Adapter.load(pair.folder, pair.ours.config)
    with pair.theirs.disable_adapter():
        plain = their_logits(pair.theirs)
    close(logits(pair.ours), plain)
    expected = their_logits(pair.theirs)
    assert (expected - plain).abs().max() > 0.1
    close(logits(pair.ours, adapter), expected)


def test_our_copy_of_it_gives_the_same_logits_there(pair: Pair, tmp_path: Path) -> None:
    Adapter.load(pair.folder, pair.ours.config).save(tmp_path, "base")
    expected = their_logits(pair.theirs)
    pair.theirs.load_adapter(str(tmp_path), "copy")
    pair.theirs.set_adapter("copy")
    assert torch.equal(their_logits(pair.theirs), expected)
    pair.theirs.set_adapter("default")
    pair.theirs.delete_adapter("copy")


def test_both_merge_to_the_same_weights(pair: Pair) -> None:
    before = {name: weight.clone() for name, weight in pair.ours.state_dict().items()}
    merge(pair.ours, Adapter.load(pair.folder, pair.ours.config))
    ours = logits(pair.ours)
    pair.ours.load_state_dict(before)
    close(ours, their_logits(pair.theirs))
    pair.theirs.merge_adapter()
    close(ours, their_logits(pair.theirs))
    pair.theirs.unmerge_adapter()


def test_an_adapter_made_here_gives_the_same_logits_there(tmp_path: Path) -> None:
    import peft

    model = reference(FAMILIES["qwen3"])
    base = load_model(write(model, FAMILIES["qwen3"], tmp_path / "base"))
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, settings in (("domain", {}), ("drafter", dict(targets=("o_proj",), draft=True)),
                               ("rslora", dict(use_rslora=True))):  # fmt: skip
            adapter = random_adapter(base.config, **settings)  # type: ignore[arg-type]
            adapter.save(tmp_path / name, "base")
            theirs = peft.PeftModel.from_pretrained(reference(FAMILIES["qwen3"]), str(tmp_path / name)).eval()
            close(logits(base, adapter), their_logits(theirs))
            merged = theirs.merge_and_unload()
            merge(base, random_adapter(base.config, **settings | {"draft": False}))  # type: ignore[arg-type]
            close(logits(base), their_logits(merged))
            base = load_model(tmp_path / "base")
