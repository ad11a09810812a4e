"""Each request has its own adapter, whatever shares its forwards; a drafter changes their number and no token."""

from pathlib import Path

import pytest
import torch

from tests.adapters import random_adapter
from tests.fakes import BYTES, VARIANTS, ScriptedModel, Watched, byte_tokenizer, decoder, drain, lively_model
from tests.models.checkpoints import refuses
from trimode.api import LLM
from trimode.engine.engine import Engine
from trimode.engine.request import Request
from trimode.errors import CheckpointError, InvalidInput
from trimode.models.adapters import Adapter
from trimode.models.merging import merge
from trimode.models.native import NativeTransformer, reason_against
from trimode.numerics.sampling import Sampling

pytestmark = pytest.mark.medium

MODEL = lively_model(1)
ADAPTERS = (None, random_adapter(MODEL.config, 1, name="a"), random_adapter(MODEL.config, 2, name="b"))
DRAFTER = random_adapter(MODEL.config, 3, strength=3.0, targets=("o_proj",), draft=True, name="swift")
PROMPTS = [[5], [7, 8, 9], [*range(4, 21)]]
SPECULATIVE = [variant for variant, (mode, _) in VARIANTS.items() if mode == "self_speculation"]
Wish = tuple[str, Adapter | None, Sampling]
WISHES: list[Wish] = [
    (variant, ADAPTERS[i % 3], Sampling(temperature=(0.0, 1.0)[i % 2], seed=i)) for i, variant in enumerate(VARIANTS)
]


def answers(wishes: list[Wish], drafter: Adapter | None = None, model: object = MODEL, **limits: int) -> list[Request]:
    engine = Engine(model, drafter=drafter, **limits)  # type: ignore[arg-type]
    requests = [
        engine.submit(PROMPTS[i % 3], decoder(variant, MODEL.config), max_tokens=14, sampling=sampling, adapter=adapter)
        for i, (variant, adapter, sampling) in enumerate(wishes)
    ]
    drain(engine)
    return requests


def counted(request: Request) -> tuple[object, ...]:
    """The answer with its cost, which in `auto` follows the load."""
    return request.answer, None if request.decoder.mode == "auto" else dict(request.counts.forwards)


@pytest.mark.parametrize("drafter", [None, DRAFTER], ids=["no drafter", "drafter"])
def test_together_each_gets_the_text_of_its_adapter_alone(drafter: Adapter | None) -> None:
    together = answers(WISHES, drafter)
    for i, request in enumerate(together):
        engine = Engine(MODEL, drafter=drafter)
        variant, adapter, sampling = WISHES[i]
        own = decoder(variant, MODEL.config)
        alone = engine.submit(PROMPTS[i % 3], own, max_tokens=14, sampling=sampling, adapter=adapter)
        drain(engine)
        assert counted(request) == counted(alone)
    plain = answers([(variant, None, sampling) for variant, _, sampling in WISHES], drafter)
    for (_, adapter, _), with_it, without in zip(WISHES, together, plain, strict=True):
        assert (with_it.answer == without.answer) == (adapter is None)


def test_an_adapter_beside_the_weights_writes_what_it_writes_merged() -> None:
    merged = lively_model.__wrapped__(1)  # a copy of its own
    merge(merged, ADAPTERS[1])
    wishes = [(variant, ADAPTERS[1], sampling) for variant, _, sampling in WISHES]
    beside = answers(wishes)
    inside = answers([(variant, None, sampling) for variant, _, sampling in wishes], model=merged)
    assert [r.answer for r in beside] == [r.answer for r in inside]


def test_parts_of_prompts_and_preemptions_keep_the_adapter() -> None:
    whole = [request.answer for request in answers(WISHES)]
    assert [request.answer for request in answers(WISHES, max_rows=9)] == whole
    assert [request.answer for request in answers(WISHES, max_cached=60)] == whole


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("adapter", ADAPTERS[:2], ids=["base", "domain"])
@pytest.mark.parametrize("strength", [0.3, 30.0])
def test_a_drafter_changes_no_token_of_an_answer(strength: float, adapter: Adapter | None, temperature: float) -> None:
    drafter = random_adapter(MODEL.config, 3, strength, targets=("o_proj",), draft=True)
    sampling = Sampling(temperature=temperature, seed=5)
    wishes = [(variant, adapter, sampling) for variant in SPECULATIVE for _ in range(2)]
    without, with_it = answers(wishes), answers(wishes, drafter)
    assert [request.answer for request in with_it] == [request.answer for request in without]
    assert [counted(request) for request in with_it] != [counted(request) for request in without]
    causal = answers([("ar", adapter, sampling)] * len(wishes))
    assert [request.answer for request in with_it] == [request.answer for request in causal]


def test_a_drafter_trained_for_all_projections_changes_no_token_either() -> None:
    drafter = random_adapter(MODEL.config, 3, 3.0, draft=True)
    wishes = [(variant, None, Sampling(seed=1)) for variant in SPECULATIVE]
    assert [r.answer for r in answers(wishes, drafter)] == [r.answer for r in answers(wishes)]


def test_a_drafter_leaves_the_other_modes_alone() -> None:
    wishes = [wish for wish in WISHES if wish[0] not in SPECULATIVE]
    assert [counted(request) for request in answers(wishes, DRAFTER)] == [
        counted(request) for request in answers(wishes)
    ]


def test_one_forward_serves_all_adapters() -> None:
    forwards: list[int] = []

    def look(positions_T: torch.Tensor, visibility: object) -> None:
        forwards.append(len(positions_T))

    model = Model(MODEL, look)
    requests = answers([("ar", adapter, Sampling()) for adapter in ADAPTERS], model=model)
    assert len(forwards) == max(request.counts.forwards.total() for request in requests)


class Model(Watched):
    def __call__(self, *given: object, **adapters: object) -> torch.Tensor:
        self.look(given[0], given[2])  # type: ignore[arg-type]
        return self.model(*given, **adapters)


def test_an_engine_refuses_what_its_model_does_not_have() -> None:
    scripted = ScriptedModel(lambda p: 5, lambda p: 5)
    with refuses(InvalidInput, "ScriptedModel", "'a'"):
        Engine(scripted).submit([5], decoder("ar", MODEL.config), adapter=ADAPTERS[1])
    with refuses(InvalidInput, "'swift'"):
        Engine(scripted, drafter=DRAFTER)
    with refuses(InvalidInput, "'swift'", "for drafts", "for all rows"):
        Engine(MODEL).submit([5], decoder("ar", MODEL.config), adapter=DRAFTER)
    with refuses(InvalidInput, "'a'", "for all rows", "for drafts"):
        Engine(MODEL, drafter=ADAPTERS[1])


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Adapters a and b, and a drafter, for a model that speaks bytes."""
    config = lively_model(vocab_size=BYTES).config
    for seed, name in enumerate("ab"):
        random_adapter(config, seed).save(tmp_path / name, "base")
    random_adapter(config, 3, 3.0, targets=("o_proj",), draft=True).save(tmp_path / "swift", "base")
    return tmp_path


@pytest.mark.parametrize("mode", ["ar", "diffusion", "self_speculation"])
def test_a_call_names_its_adapter(mode: str, folders: Path) -> None:
    llm = LLM(lively_model(vocab_size=BYTES), byte_tokenizer())
    plain = llm.generate("hello", mode=mode, max_tokens=20)
    assert llm.load_adapter(folders / "a") == "a"
    assert llm.load_adapter(folders / "b", "other") == "other"
    assert list(llm.adapters) == ["a", "other"]
    found = {name: llm.generate("hello", mode=mode, max_tokens=20, adapter=name) for name in (None, "a", "other")}
    assert found[None].token_ids == plain.token_ids
    assert len({answer.token_ids for answer in found.values()}) == 3
    stream = llm.stream("hello", mode=mode, max_tokens=20, adapter="a")
    assert "".join(event.text for event in stream) == found["a"].text
    llm.unload_adapter("a")
    with refuses(InvalidInput, "adapter is 'a', loaded are: other"):
        llm.generate("hello", adapter="a")


def test_a_call_can_have_a_drafter_and_an_adapter(folders: Path) -> None:
    llm = LLM(lively_model(vocab_size=BYTES), byte_tokenizer())
    llm.load_adapter(folders / "a")
    before = [llm.generate("hello", max_tokens=30, adapter=name) for name in (None, "a")]
    llm.load_drafter(folders / "swift")
    after = [llm.generate("hello", max_tokens=30, adapter=name) for name in (None, "a")]
    assert [answer.token_ids for answer in before] == [answer.token_ids for answer in after]
    assert [answer.forwards for answer in before] != [answer.forwards for answer in after]


def test_bad_names_and_folders_are_refused_and_change_nothing(folders: Path) -> None:
    llm = LLM(lively_model(vocab_size=BYTES), byte_tokenizer())
    with refuses(InvalidInput, "adapter is 'a', loaded are: none"):
        llm.generate("hello", adapter="a")
    with refuses(CheckpointError, "missing"):
        llm.load_adapter(folders / "c")
    with refuses(InvalidInput, "draft adapter", "drafter"):
        llm.load_adapter(folders / "swift")
    llm.load_adapter(folders / "a")
    for name in ("a", ""):
        with refuses(InvalidInput, f"adapter name is {name!r}"):
            llm.load_adapter(folders / "b", name)
    with refuses(InvalidInput, "adapter is 'b'"):
        llm.unload_adapter("b")
    assert list(llm.adapters) == ["a"]


def test_the_torch_model_serves_while_there_are_adapters(folders: Path) -> None:
    model = lively_model(vocab_size=BYTES, hidden_size=32, head_dim=16)
    if (reason := reason_against(model)) is not None:
        pytest.skip(reason)
    random_adapter(model.config).save(folders / "fits", "base")
    llm = LLM(model, byte_tokenizer(), served=NativeTransformer(model))
    costs = {llm.backend: llm.cost}
    llm.load_adapter(folders / "fits")
    assert llm.backend == "torch"
    assert llm.cost == model.cost != costs["native"]
    llm.generate("hello", max_tokens=3, adapter="fits")
    llm.unload_adapter("fits")
    assert (llm.backend, llm.cost) == ("native", costs["native"])
    insisting = LLM(model, byte_tokenizer(), served=NativeTransformer(model), insists=True)
    for load in (insisting.load_adapter, insisting.load_drafter):
        with refuses(InvalidInput, "'native'", "'torch'"):
            load(folders / "fits")
