"""Stand-ins that make everything testable in milliseconds: a scripted model, a byte tokenizer, tiny real models."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers
from tokenizers.decoders import ByteLevel
from torch import Tensor

from trimode.cache import Cache, KVPool
from trimode.config import ModelConfig, Rope
from trimode.cost import FLAT
from trimode.decoding import MODES, Decoder, build
from trimode.engine.engine import Engine
from trimode.engine.request import Request
from trimode.models.checkpoint import empty
from trimode.models.transformer import Transformer, initialise
from trimode.numerics.visibility import Visibility
from trimode.tokenizer import Tokenizer

MASK, EOS = 3, 2
BYTES = 262  # vocabulary of `byte_tokenizer`

RELEASED: dict[str, Any] = dict(
    placement="linear", anchor="canvas", verify_above=0.0, fallback_below=0.0, lookup_length=0
)

# What every mode must keep, it must keep here: each mode as it comes, and settings that reach the corners.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = (
    {mode: (mode, {}) for mode in MODES}
    | {
        "fused": ("diffusion", dict(block_size=5, confidence_threshold=0.5)),
        "canvas": ("diffusion", dict(block_size=5, confidence_threshold=0.5, anchor="canvas")),
        "none": ("diffusion", dict(block_size=5, confidence_threshold=0.5, anchor="none")),
        "quota": ("diffusion", dict(block_size=8, confidence_threshold=None, max_denoising_steps=3)),
        "leftmost": ("diffusion", dict(block_size=6, rule="leftmost", max_denoising_steps=3)),
        "entropy": ("diffusion", dict(block_size=6, rule="entropy", confidence_threshold=0.3, anchor="none")),
        "doubt": ("diffusion", dict(block_size=6, confidence_threshold=0.2, remask="low_confidence", remask_below=0.9)),
        "mixture": ("diffusion", dict(block_size=6, confidence_threshold=0.4, ar_weight=0.5)),
        "draft of 3": (
            "self_speculation",
            dict(placement="chained", draft_length=3, lookup_length=0, verify_above=0.0, fallback_below=0.0),
        ),
        "draft of 8": (
            "self_speculation",
            dict(placement="chained", draft_length=8, lookup_length=0, verify_above=0.0, fallback_below=0.0),
        ),
        "as released": ("self_speculation", RELEASED | dict(draft_length=6)),
        "several looks": ("self_speculation", RELEASED | dict(draft_length=6, draft_threshold=0.4)),
        "looked up": ("self_speculation", dict(lookup_length=5, verify_above=0.0, fallback_below=0.0)),
    }
    | {
        f"{placement} of {length}": (
            "self_speculation",
            dict(placement=placement, draft_length=length, verify_above=0.0, fallback_below=0.0, lookup_length=lookup),
        )
        for placement in ("linear", "pruned", "quadratic")
        for length, lookup in ((4, 0), (7, 3))
    }
)


def decoder(variant: str, config: ModelConfig) -> Decoder[Any]:
    """A row of VARIANTS as a decoder."""
    mode, options = VARIANTS[variant]
    return build(mode, config, **options)


def drain(engine: Engine) -> None:
    """Step until every request has ended."""
    while not engine.is_idle:
        engine.step()


def alone(model: Any, variant: str, prompt: Sequence[int], **submitted: Any) -> Request:
    """One request in an engine of its own, run to its end."""
    engine = Engine(model)
    request = engine.submit(prompt, decoder(variant, model.config), **submitted)
    drain(engine)
    return request


def tiny_config(**changes: object) -> ModelConfig:
    """A geometry small enough for a test, with every peculiarity of the family: head_dim != hidden / heads, GQA."""
    fields: dict[str, object] = dict(
        model_type="nemotron_labs_diffusion", vocab_size=61, hidden_size=24, intermediate_size=40, n_layers=2,
        n_heads=4, n_kv_heads=2, head_dim=8, norm_eps=1e-5, context_length=256, rope=Rope(theta=10000.0), tied=False,
        mask_token_id=MASK, eos_token_ids=(EOS,), bos_token_id=1, block_size=8, dtype="float32",
    )  # fmt: skip
    return ModelConfig(**(fields | changes))  # type: ignore[arg-type]


@lru_cache
def tiny_model(seed: int = 0, sharpness: float = 6.0) -> Transformer:
    """Random weights, fp32; the head is scaled so that choices are clear and texts vary."""
    model = empty(tiny_config(), torch.float32, torch.device("cpu"))
    initialise(model, seed)
    with torch.no_grad():
        model.embedding.mul_(50)
        model.head.mul_(50 * sharpness)
    return model.eval().requires_grad_(False)


@lru_cache
def lively_model(seed: int = 0, sharpness: float = 0.7, **changes: Any) -> Transformer:
    """Random weights whose canvas slots differ from one another and whose confidences spread over 0 to 1."""
    model = empty(tiny_config(**changes), torch.float32, torch.device("cpu"))
    initialise(model, seed)
    with torch.no_grad():
        model.embedding.mul_(50)
        model.embedding[model.config.mask_token_id].mul_(0.3)  # masks are to look around, not at themselves
        model.head.mul_(50 * sharpness)
        for layer in model.layers:
            layer.qkv[: -model.config.n_kv_heads * model.config.head_dim].mul_(3)  # queries and keys: sharp attention
            layer.out.mul_(6)
    return model.eval().requires_grad_(False)


class ScriptedModel:
    """Knows the text by heart: position p of the true text is `truth(p)`, a canvas guesses `guess(p)` there.

    A read row whose own token is the mask is a canvas row and names its own position; any other names the next one.
    Guesses carry the probability `sure(p)`, the rest is spread evenly.
    """

    def __init__(
        self, truth: Callable[[int], int], guess: Callable[[int], int], sure: Callable[[int], float] = lambda p: 0.95,
        *, vocab_size: int = 61, context_length: int = 256,
    ) -> None:  # fmt: skip
        self.config = tiny_config(vocab_size=vocab_size, context_length=context_length)
        self.truth, self.guess, self.sure, self.cost = truth, guess, sure, FLAT
        self.dtype, self.device = torch.float32, torch.device("cpu")
        self.calls: list[int] = []  # rows of every forward

    def __call__(
        self,
        tokens_T: Tensor,
        positions_T: Tensor,
        visibility: Visibility,
        cache: Sequence[Cache[KVPool]] | None = None,
    ) -> Tensor:
        self.calls.append(len(tokens_T))
        is_canvas = tokens_T == MASK
        return torch.stack([torch.where(is_canvas, positions_T, positions_T + 1), is_canvas.long()], -1).double()

    def logits(self, hidden_SD: Tensor) -> Tensor:
        out = torch.empty(len(hidden_SD), self.config.vocab_size, dtype=torch.float64)
        for row, (position, is_canvas) in enumerate(hidden_SD.long().tolist()):
            p = self.sure(position) if is_canvas else 0.99
            out[row] = torch.log(torch.tensor((1 - p) / (self.config.vocab_size - 1), dtype=torch.float64))
            out[row, self.guess(position) if is_canvas else self.truth(position)] = torch.log(torch.tensor(p))
        return out

    def new_pool(self, capacity: int) -> KVPool:
        return KVPool(1, 1, 1, capacity, torch.float32, torch.device("cpu"))

    def new_cache(self, capacity: int) -> Cache[KVPool]:
        return Cache(self.new_pool(capacity))


def written(cache: Cache[KVPool], n: int) -> tuple[Tensor, Tensor]:
    """Copies of the keys and values of the first n positions, [L, G, n, K]."""
    slots = torch.tensor(cache.slots()[:n], dtype=torch.long)
    return cache.pool.k_LGSK[:, :, slots].clone(), cache.pool.v_LGSK[:, :, slots].clone()


def byte_tokenizer() -> Tokenizer:
    """Ids 0-3 are special (pad, bos, eos, mask), then one id per byte; ChatML markers and a template."""
    special = ["<|pad|>", "<|bos|>", "<|eos|>", "<|mask|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Backend(models.BPE(vocab={s: i for i, s in enumerate(special + alphabet)}, merges=[]))
    backend.add_special_tokens([*special, "<|im_start|>", "<|im_end|>"])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = ByteLevel()
    chat = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return Tokenizer(backend, chat, "<|bos|>")


def reciter(text: str, n_prompt: int, *, sure: float = 0.95) -> ScriptedModel:
    """Recites the bytes of a text from position n_prompt on, then EOS for ever; its guesses are right."""
    tokens = byte_tokenizer().encode(text)

    def truth(position: int) -> int:
        return tokens[position - n_prompt] if 0 <= position - n_prompt < len(tokens) else EOS

    return ScriptedModel(truth, truth, lambda position: sure, vocab_size=BYTES)


class Watched:
    """Any model; `look` sees the positions and the visibility of every forward."""

    def __init__(self, model: Any, look: Callable[[Tensor, Visibility], None]) -> None:
        self.model, self.look = model, look

    def __call__(self, tokens_T: Tensor, positions_T: Tensor, visibility: Visibility, *rest: Any) -> Tensor:
        self.look(positions_T, visibility)
        return self.model(tokens_T, positions_T, visibility, *rest)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)
