"""Checkpoints whose committed blocks see both ways decode as published, token for token and forward for forward."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, product
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.decoding.references import Answer, Eyes
from tests.fakes import drain, lively_model, written
from trimode.decoding import build, default_mode
from trimode.engine.engine import Engine
from trimode.engine.request import Request
from trimode.engine.runner import Job, run
from trimode.errors import InvalidInput
from trimode.models.transformer import Transformer
from trimode.numerics.sampling import Sampling
from trimode.numerics.visibility import Masked, Stream
from trimode.spans import Span

pytestmark = pytest.mark.medium

SIZE = 4
KINDS = ("own", "shifted")
WAYS = (Sampling(), Sampling(temperature=1.0, seed=7))
PROMPTS = ((5,), (5, 2, 9), (1, *range(20, 27)), (1, *range(20, 34), 2), tuple(range(30, 43)))
ENDS = ((), (2,), (2, 5, 9, 18, 21, 22, 35, 36))  # ids that end a text
RULES: dict[str, dict[str, Any]] = {
    "threshold 0.4": dict(confidence_threshold=0.4),
    "threshold 0.9": dict(),
    "one by one": dict(confidence_threshold=1.1),
    "at once": dict(confidence_threshold=0.0),
    "3 looks": dict(confidence_threshold=0.9, max_denoising_steps=3),
    "even quota": dict(confidence_threshold=None),
    "even quota, 3 looks": dict(confidence_threshold=None, max_denoising_steps=3),
    "halves": dict(confidence_threshold=0.4, sub_block_size=2),
    "thirds": dict(confidence_threshold=0.4, sub_block_size=3),
}


def model(kind: str, seed: int = 0, **changes: Any) -> Transformer:
    return lively_model(seed, commit_visibility="block", canvas_logits=kind, block_size=SIZE, **changes)


class BlockEyes(Eyes):
    """All rows of one forward over whole blocks, each of which sees itself and the blocks before it."""

    def look(self, tokens: Sequence[int]) -> Tensor:
        key = (tuple(tokens), ())
        if key not in self.seen:
            block = torch.arange(len(tokens)) // SIZE
            bias = torch.zeros(len(tokens), len(tokens)).masked_fill(block[:, None] < block, float("-inf"))
            stream = Stream(start=0, count=1, rows=len(tokens), past=0, bias_NQK=bias[None, None])
            hidden = self.model(torch.tensor(tokens), torch.arange(len(tokens)), Masked(given=(stream,)))
            self.seen[key] = self.model.logits(hidden)
        return self.seen[key]


@dataclass
class Rule:
    confidence_threshold: float | None = 0.9
    max_denoising_steps: int | None = None
    sub_block_size: int | None = None
    anchor: str | None = None

    def fill(self, sure: dict[int, float], look: int, n_free: int) -> list[int]:
        """Slots to fill at this look, of which n_free were filled from the text."""
        ranked = sorted(sure, key=lambda slot: (-sure[slot], slot))
        steps = self.max_denoising_steps or SIZE
        if look >= steps - 1:
            return ranked
        if self.confidence_threshold is None:
            shares = [SIZE // steps + (i < SIZE % steps) for i in range(steps)]
            return ranked[: max(shares[look], 1) - n_free]
        return ranked[: max(sum(sure[slot] >= self.confidence_threshold for slot in ranked), 1 - n_free)]


def reference(eyes: BlockEyes, prompt: Sequence[int], max_tokens: int, rule: Rule) -> Answer:
    """The decoders of the two papers. Against them, a block's first look rides with the commit of the block before it
    where it can, a block is left when the answer's part of it is filled, and the mask is never chosen."""
    config = eyes.model.config
    text, end, counts = list(prompt), min(len(prompt) + max_tokens, config.context_length), Counter[str]()
    while True:
        tail = text[len(text) // SIZE * SIZE :]
        past = text[: len(text) - len(tail)]
        block = tail + [config.mask_token_id] * (SIZE - len(tail))
        fill_block(eyes, past, block, len(tail), end, rule, counts)
        for token in block[len(tail) :]:
            text.append(token)
            if token in config.eos_token_ids:
                return Answer(tuple(text[len(prompt) :]), dict(counts), "stop")
            if len(text) == end:
                return Answer(tuple(text[len(prompt) :]), dict(counts), "length")


def fill_block(
    eyes: BlockEyes, past: list[int], block: list[int], n_tail: int, end: int, rule: Rule, counts: Counter[str]
) -> None:
    """Look after look until what the answer needs of the block is filled. Changes block and counts."""
    config = eyes.model.config
    mask, shift = config.mask_token_id, int(config.canvas_logits == "shifted")
    kind, look, anchor = "commit" if counts else "prefill", 0, None
    if shift and not n_tail:
        anchor = eyes.choose(eyes.look(past)[-1], len(past))[0]
        if rule.anchor == "canvas":
            block[0], anchor = anchor, None
            counts[kind] += 1
            kind = "denoise"
    while not is_filled(block[n_tail : end - len(past)], mask, config.eos_token_ids):
        counts[kind] += 1
        kind = "denoise"
        rows = eyes.look(past + block)
        wanted = [slot for slot in range(SIZE) if block[slot] == mask and not (slot == 0 and anchor is not None)]
        part = rule.sub_block_size or SIZE
        wanted = [slot for slot in wanted if slot // part == wanted[0] // part]
        picks = {slot: eyes.choose(rows[len(past) + slot - shift], len(past) + slot, look) for slot in wanted}
        sure = {slot: confidence for slot, (_, confidence) in picks.items()}
        for slot in rule.fill(sure, look, n_free=int(anchor is not None)):
            block[slot] = picks[slot][0]
        if anchor is not None:
            block[0], anchor = anchor, None
        look += 1


def is_filled(slots: Sequence[int], mask: int | None, eos: Sequence[int]) -> bool:
    for token in slots:
        if token == mask or token in eos:
            return token != mask
    return True


def ours(
    network: Transformer,
    prompt: tuple[int, ...],
    max_tokens: int,
    sampling: Sampling,
    max_rows: int = 2048,
    **options: Any,
) -> Request:
    engine = Engine(network, max_rows=max_rows)
    decoder = build("diffusion", network.config, **options)
    request = engine.submit(prompt, decoder, max_tokens=max_tokens, sampling=sampling)
    drain(engine)
    return request


def as_answer(request: Request) -> Answer:
    return Answer(request.answer, dict(request.counts.forwards), str(request.finish))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("kind", "anchor"), [("own", None), ("shifted", "fused"), ("shifted", "canvas")])
def test_block_diffusion_equals_its_reference(kind: str, anchor: str | None, rule: str) -> None:
    options = RULES[rule] | ({} if anchor is None else {"anchor": anchor})
    turns = cycle(product(WAYS, ENDS))
    finishes, looks = set(), 0
    for (seed, prompt, max_tokens), (sampling, ends) in zip(product((0, 1), PROMPTS, (1, 6, 19)), turns, strict=False):
        network = model(kind, seed, eos_token_ids=ends)
        expected = reference(BlockEyes(network, sampling), prompt, max_tokens, Rule(**options))
        assert as_answer(ours(network, prompt, max_tokens, sampling, **options)) == expected, (prompt, max_tokens)
        finishes.add(expected.finish)
        looks += expected.forwards.get("denoise", 0)
    assert finishes == {"stop", "length"}
    assert looks or rule == "at once"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_rows", [1, 8, 11, 13])
def test_a_long_prompt_is_committed_in_whole_blocks(kind: str, max_rows: int) -> None:
    network, prompt = model(kind), tuple(range(10, 37))
    whole = ours(network, prompt, 12, Sampling())
    parted = ours(network, prompt, 12, Sampling(), max_rows)
    assert as_answer(parted) == as_answer(whole)
    assert parted.counts.prefill_parts > 0 == whole.counts.prefill_parts


@pytest.mark.parametrize("kind", KINDS)
def test_requests_in_a_batch_get_what_they_get_alone(kind: str) -> None:
    network = model(kind, eos_token_ids=())
    engine = Engine(network)
    options = [dict(), dict(confidence_threshold=0.4), dict(sub_block_size=2), dict(confidence_threshold=None), dict()]
    requests = [
        engine.submit(prompt, build("diffusion", network.config, **chosen), max_tokens=21)
        for prompt, chosen in zip(PROMPTS, options, strict=True)
    ]
    drain(engine)
    for request, prompt, chosen in zip(requests, PROMPTS, options, strict=True):
        assert as_answer(request) == as_answer(ours(network, prompt, 21, Sampling(), **chosen))


@pytest.mark.parametrize("kind", KINDS)
def test_the_cache_holds_whole_blocks_that_equal_a_fresh_commit(kind: str) -> None:
    network = model(kind, eos_token_ids=())
    engine = Engine(network)
    request = engine.submit(PROMPTS[-1], build("diffusion", network.config), max_tokens=30)
    looks = []
    while request.finish is None:
        engine.step()
        n = request.cache.length
        assert n % SIZE == 0
        if request.finish is not None:
            break  # whoever has ended holds no cache
        looks.append(written(request.cache, n))
    n = len(request.tokens) // SIZE * SIZE
    fresh = network.new_cache(n)
    span = Span(commit=tuple(request.tokens[:n]), block=SIZE, kind="prefill")
    run(network, [Job(span=span, cache=fresh, sampling=Sampling())])
    assert looks[-1][0].shape[2] >= n - SIZE > len(PROMPTS[-1])
    for k, v in looks:
        torch.testing.assert_close((k, v), written(fresh, k.shape[2]), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_shorter_answer_is_the_beginning_of_a_longer_one(kind: str) -> None:
    network = model(kind, eos_token_ids=())
    longest = ours(network, (5, 2, 9), 24, Sampling()).answer
    for n in range(1, 24):
        assert ours(network, (5, 2, 9), n, Sampling()).answer == longest[:n]


def test_other_modes_are_refused_with_the_reason() -> None:
    config = model("own").config
    for mode in ("ar", "self_speculation", "prompt_lookup"):
        with pytest.raises(InvalidInput, match=rf"mode '{mode}'.*both ways.*'diffusion'"):
            build(mode, config)
    assert default_mode(config) == "diffusion"


def test_a_parameter_that_would_change_the_blocks_is_refused() -> None:
    config = model("own").config
    with pytest.raises(InvalidInput, match=r"block_size.*sub_block_size, anchor"):
        build("diffusion", config, block_size=8)
    with pytest.raises(InvalidInput, match=r"anchor is 'fused', but no committed row"):
        build("diffusion", config, anchor="fused")
    with pytest.raises(InvalidInput, match=r"anchor is 'none', allowed are fused, canvas"):
        build("diffusion", model("shifted").config, anchor="none")
