"""Whether a device writes what the CPU writes: the same prompts in every mode, float32, token for token.

A differing token of any mode but `diffusion` is explained when the CPU's own scores of the two tokens (noise
included) are closer than TIE. Diffusion also chooses by confidence thresholds, so its differences are only counted.
"""

from collections.abc import Sequence
from typing import Any

import torch

from scripts.bench.systems import VARIANTS
from trimode import LLM, load
from trimode.decoding import build
from trimode.errors import InvalidInput
from trimode.evaluation.tasks import TASKS, example
from trimode.models.transformer import Transformer
from trimode.numerics.sampling import Sampling, draw, gumbel
from trimode.numerics.visibility import serving
from trimode.spans import Span

TIE = 1e-4
TEMPERATURES = (0.0, 0.7)
SEED = 7


def prompts(n: int) -> list[str]:
    """n held-out prompts, from all tasks in turn."""
    names = list(TASKS)
    return [example(names[i % len(names)], "heldout", 1000, i // len(names)).prompt for i in range(n)]


def check(device: str, n: int, max_tokens: int) -> tuple[list[dict[str, Any]], list[str]]:
    """A row per variant and temperature, and the variants that this version refuses."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    here, there = (load(dtype="float32", device=name, backend="torch") for name in ("cpu", device))
    texts, rows, skipped = [here.tokenizer.encode(text) for text in prompts(n)], [], []
    for temperature in TEMPERATURES:
        reference: list[tuple[int, ...]] = []
        for name, options in VARIANTS.items():
            try:
                build(**{"config": here.model.config, **options})
            except InvalidInput as reason:
                skipped.append(f"{name}: {reason}")
                continue
            chosen = {**options, "temperature": temperature, "seed": SEED, "max_tokens": max_tokens}
            expected, answers = write(here, texts, chosen), write(there, texts, chosen)
            alone = [write(there, [text], chosen)[0] for text in texts]
            reference = reference or answers
            is_causal = options["mode"] != "diffusion"
            pairs = [(answers, expected), (alone, answers), (answers, reference)] if is_causal else []
            rows.append({
                "variant": name, "temperature": temperature, "prompts": len(texts),
                "as_cpu": count_equal(answers, expected), "alone_as_batch": count_equal(alone, answers),
                "as_ar": count_equal(answers, reference),
                "margins": [m for a, b in pairs for m in margins(here.model, texts, a, b, temperature)],
                "is_causal": is_causal,
            })  # fmt: skip
    return rows, sorted(set(skipped))


def write(llm: LLM, texts: list[list[int]], options: dict[str, Any]) -> list[tuple[int, ...]]:
    """Token ids of all answers, written together."""
    return [done.token_ids for done in llm.generate(texts, **options)]


def count_equal(found: Sequence[object], expected: Sequence[object]) -> int:
    return sum(a == b for a, b in zip(found, expected, strict=True))


def is_explained(row: dict[str, Any]) -> bool:
    """All that must be equal is, up to ties."""
    return all(margin < TIE for margin in row["margins"])


def margins(
    model: Transformer, texts: Sequence[Sequence[int]], left: Sequence[Sequence[int]],
    right: Sequence[Sequence[int]], temperature: float,
) -> list[float]:  # fmt: skip
    """Per differing answer, how far apart the CPU's scores of the first two differing tokens are."""
    out = []
    for text, one, other in zip(texts, left, right, strict=True):
        at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
        if at is not None:
            scores_V = scores(model, [*text, *one[:at]], temperature)
            out.append(abs(float(scores_V[one[at]] - scores_V[other[at]])))
        elif len(one) != len(other):
            out.append(float("inf"))
    return out


@torch.inference_mode()
def scores(model: Transformer, tokens: Sequence[int], temperature: float) -> torch.Tensor:
    """What the choice after `tokens` is the argmax of: logits and keyed noise, float64 [vocabulary]."""
    n = len(tokens)
    span = Span(commit=tuple(tokens), read=(n - 1,), kind="prefill")
    hidden = model(torch.tensor(tokens), torch.arange(n), serving([span], [0]), [model.new_cache(n)])
    logits_V = model.logits(hidden[-1:])[0].double()
    if temperature == 0:
        return logits_V
    key = draw(Sampling(temperature=temperature, seed=SEED), n, 0).key
    return logits_V + temperature * gumbel(signed([key]), len(logits_V))[0]


def noise_difference(device: str, n_keys: int = 64, vocabulary: int = 131072) -> float:
    """Largest difference of the keyed noise. Its bits are integers; a wrong one moves the noise by the order of 1,
    while two float64 logarithms may differ in their last digit."""
    sampling = Sampling(temperature=1.0, seed=2**63 + 11)
    keys = signed([draw(sampling, position, 0).key for position in range(n_keys)])
    return float((gumbel(keys, vocabulary) - gumbel(keys.to(device), vocabulary).cpu()).abs().max())


def signed(keys: Sequence[int]) -> torch.Tensor:
    """64-bit keys as int64."""
    return torch.tensor([key - (1 << 64) if key >= 1 << 63 else key for key in keys])


def bfloat16_rate(device: str, n: int, max_tokens: int) -> str:
    """How many greedy answers of self_speculation are ar's in bfloat16, where near ties may fall either way."""
    llm = load(dtype="bfloat16", device=device, backend="torch")
    texts = [llm.tokenizer.encode(text) for text in prompts(n)]
    both = [write(llm, texts, {"mode": m, "max_tokens": max_tokens}) for m in ("ar", "self_speculation")]
    return f"{count_equal(*both)} of {len(texts)}"
