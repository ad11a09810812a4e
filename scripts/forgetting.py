"""Does fine-tuning on a new domain keep all modes? The bundled model, three objectives, the same documents.

    python scripts/forgetting.py [--steps 200] [--seeds 0,1] [--rate 3e-4] [--items 24] [--json OUT.json]

The documents: half are of a domain new to the model, fields to TOML, half of the tasks it was made for. Arms, all from
the same weights, documents, steps, AdamW and rate:
  joint           w_ar = 1, w_diffusion = 0.3, block diffusion with clean causal context (trimode's default)
  ar              next tokens only
  bidirectional   the whole text as one canvas, prompt clean, every answer token masked with probability t ~ U(eps, 1),
                  cross entropy / t over masked tokens, no autoregressive part: what general fine-tuners do to
                  masked diffusion models (LLaDA, arXiv 2502.09992)
Measured on held-out prompts, greedy, float32: accuracy of `ar` and of `diffusion` (threshold 0.9), acceptance length of
`self_speculation` (linear, drafts of 16, nothing looked up), nats per answer token of the causal rows and the bound of
blocks of 16, on the domain and on the eight tasks the model was made for.
"""

import argparse
import json
import platform
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from scripts.budget_curve import wilson
from trimode.api import BUNDLED, LLM, load, serving_model
from trimode.evaluation.tasks import TASKS, Example, example
from trimode.evaluation.tasks.base import Task, ask, same_text
from trimode.models.checkpoint import load_model
from trimode.models.transformer import Transformer
from trimode.numerics.noise import Noise
from trimode.spans import Canvas, Span
from trimode.tokenizer import Tokenizer
from trimode.training.batch import Batch, pack
from trimode.training.documents import Document, Special
from trimode.training.nelbo import exact_nll, nelbo
from trimode.training.objectives import Joint, value
from trimode.training.samples import Sample, Target, make_sample

STREAMS, ROWS = 4, 512
NUMBERS = ("per_forward", "acceptance", "nll", "nelbo")
EVALUATION_SEED = 5000


def toml(fields: dict[str, Any]) -> str:
    """Plain keys first, tables behind, as TOML asks for."""
    plain = [f"{key} = {json.dumps(v)}" for key, v in fields.items() if not isinstance(v, dict)]
    tables = [f"\n[{key}]\n" + toml(v) for key, v in fields.items() if isinstance(v, dict)]
    return "\n".join([*plain, *tables])


def domain(split: str, seed: int, index: int) -> Example:
    """The `json` task asked for in another language."""
    drawn = example("json", split, seed, index)  # type: ignore[arg-type]
    body = drawn.prompt.split("\n", 1)[1].removesuffix("\nAnswer:\n")
    return ask("toml", "Write these settings as TOML:", body, toml(json.loads(drawn.answer)))


def documents(tokenizer: Tokenizer, seed: int) -> Iterator[Document]:
    """The domain and an own task in turn, prompt and answer; the end of text is learned too."""
    index = 0
    while True:
        task = sorted(TASKS)[index // 2 % len(TASKS)]
        drawn = example(task, "train", seed, index) if index % 2 else domain("train", seed, index)
        yield answered(tokenizer, drawn)
        index += 1


def answered(tokenizer: Tokenizer, item: Example) -> Document:
    prompt, answer = tokenizer.encode(item.prompt), tokenizer.encode(item.answer)
    return Document.text((*prompt, *answer, 2), len(prompt))


def bidirectional(document: Document, mask: int, key: str) -> Sample:
    """One canvas of everything: no commit, no clean context but the unmasked tokens of the same canvas."""
    rng = random.Random(key)
    t = 1e-3 + (1 - 1e-3) * rng.random()
    shown, targets = list(document.tokens), []
    for start, stop in document.answers:
        for i in range(start, stop):
            if rng.random() < t:
                targets.append(Target(row=i, label=shown[i], weight=1 / t))
                shown[i] = mask
    span = Span(commit=(), canvases=(Canvas(after=0, tokens=tuple(shown)),), kind="denoise")
    return Sample(span=span, ar=(), diffusion=tuple(targets), n_diffusion=document.n_targets)


Make = Callable[[Document, str], Sample]


def arms(special: Special, block_size: int) -> dict[str, tuple[Make, Joint]]:
    noise = Noise(block_sizes=(block_size,))
    mask = special.mask_token_id
    return {
        "joint": (lambda d, key: make_sample(d, noise, special, key), Joint()),
        "ar": (lambda d, key: make_sample(d, None, special, key), Joint()),
        "bidirectional": (lambda d, key: bidirectional(d, mask, key), Joint(weights={"ar": 0.0, "diffusion": 1.0})),
    }


def steps(make: Make, source: Iterator[Document], mask: int, seed: int) -> Iterator[Batch]:
    """Batches of the same number of documents in every arm: what the widest form of them fits into."""
    count = 0
    while True:
        packs: list[list[Sample]] = []
        for _ in range(STREAMS):
            packs.append([])
            room = ROWS
            while room >= 256:
                document = next(source)
                packs[-1].append(make(document, f"{seed}:{count}"))
                room -= 2 * len(document.tokens) + 32
                count += 1
        yield pack(packs, max(sum(s.span.n_rows for s in part) for part in packs), mask)


def tune(model: Transformer, feed: Iterator[Batch], objective: Joint, n_steps: int, rate: float) -> None:
    """AdamW, 10 % warm-up, linear decay. Mutates the model."""
    model.train().requires_grad_(True)
    optim = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    for step in range(n_steps):
        factor = min(1.0, (step + 1) / (0.1 * n_steps), (n_steps - step) / (0.5 * n_steps))
        optim.param_groups[0]["lr"] = rate * factor
        batch = next(feed)
        with torch.autocast("cpu", torch.bfloat16):
            loss = value(objective.sums(model, batch), objective.counts(batch), objective.weights)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optim.step()
        optim.zero_grad()
    model.eval().requires_grad_(False)


def examine(llm: LLM, work: list[tuple[Task, Example]], special: Special, batch: int = 8) -> dict[str, float]:
    """Accuracy in two modes, acceptance length, likelihoods, and whether self-speculation kept its promise."""
    prompts = [item.prompt for _, item in work]

    def answers(mode: str) -> list[Any]:
        parts = [prompts[i : i + batch] for i in range(0, len(prompts), batch)]
        return [a for part in parts for a in llm.generate(part, mode=mode, max_tokens=160)]

    def right(given: list[Any]) -> int:
        return sum(bool(task.check(item, a.text)) for (task, item), a in zip(work, given, strict=True))

    ar, diffusion = answers("ar"), answers("diffusion")
    drafted = [
        llm.generate(p, mode="self_speculation", max_tokens=160, placement="linear", draft_length=16, lookup_length=0,
                     verify_above=0.0, fallback_below=0.0) for p in prompts
    ]  # fmt: skip
    verified = sum(a.forwards.get("verify", 0) for a in drafted)
    texts = [answered(llm.tokenizer, item) for _, item in work]
    return {
        "n": len(work), "ar": right(ar), "diffusion": right(diffusion),
        "per_forward": sum(a.completion_tokens for a in diffusion) / sum(a.forwards["total"] for a in diffusion),
        "acceptance": sum((a.acceptance_length or 0) * a.forwards.get("verify", 0) for a in drafted) / max(verified, 1),
        "nll": exact_nll(llm.model, texts).per_token,
        "nelbo": nelbo(llm.model, texts, 16, draws=4, seed=0, special=special).per_token,
        "identical": sum(a.token_ids == b.token_ids for a, b in zip(ar, drafted, strict=True)),
    }  # fmt: skip


def measured(model: Transformer, items: int, special: Special) -> dict[str, dict[str, float]]:
    """On the domain and on the model's own tasks."""
    tokenizer = Tokenizer.load(BUNDLED)
    llm = LLM(model, tokenizer, folder=BUNDLED, served=serving_model(model, "auto"))
    checker = Task(name="toml", make=TASKS["json"].make, check=same_text)
    own = [(TASKS[t], example(t, "heldout", EVALUATION_SEED, i)) for t in TASKS for i in range(items)]
    new = [(checker, domain("heldout", EVALUATION_SEED, i)) for i in range(2 * items)]
    return {"domain": examine(llm, new, special), "own tasks": examine(llm, own, special)}


def report(results: dict[str, list[dict[str, dict[str, float]]]]) -> str:
    """One row per arm and set, all seeds side by side; accuracies with the 95 % interval of the pooled answers."""
    head = "| arm | set | ar right | diffusion right | its tokens per forward | acceptance length | NLL | NELBO, 16 |"
    lines = [head,
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for arm, runs in results.items():
        for name in runs[0]:
            cells = [run[name] for run in runs]
            n = int(sum(c["n"] for c in cells))
            shares = []
            for mode in ("ar", "diffusion"):
                low, high = wilson(int(sum(c[mode] for c in cells)), n)
                each = ", ".join(f"{c[mode] / c['n']:.2f}" for c in cells)
                shares.append(f"{each} ({low:.2f}-{high:.2f})")
            rest = [", ".join(f"{c[k]:.2f}" for c in cells) for k in NUMBERS]
            lines.append(f"| {arm} | {name} | {' | '.join([*shares, *rest])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--items", type=int, default=24, help="prompts per task; twice as many of the domain")
    parser.add_argument("--arms", default="joint,ar,bidirectional")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    start, llm = time.perf_counter(), load(dtype="float32")
    special = Special(mask_token_id=llm.model.config.mask_token_id or 0, eos_token_id=2)
    results = {"before": [measured(llm.model, options.items, special)]}
    chosen = {name: arm for name, arm in arms(special, llm.model.config.block_size or 32).items()
              if name in options.arms.split(",")}  # fmt: skip
    for name, (make, objective) in chosen.items():
        results[name] = []
        for seed in map(int, options.seeds.split(",")):
            model = load_model(BUNDLED, "float32")
            torch.manual_seed(seed)
            feed = steps(make, documents(llm.tokenizer, seed), special.mask_token_id, seed)
            tune(model, feed, objective, options.steps, options.rate)
            results[name].append(measured(model, options.items, special))
            print(name, seed, results[name][-1], f"{time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    print(report(results))
    identical = sum(c["identical"] for runs in results.values() for run in runs for c in run.values())
    total = sum(c["n"] for runs in results.values() for run in runs for c in run.values())
    print(f"\nself_speculation wrote the tokens of ar in {identical:.0f} of {total:.0f} answers. "
          f"{options.steps} steps, rate {options.rate}, seeds {options.seeds}, "
          f"{torch.get_num_threads()} threads, torch {torch.__version__}, "
          f"{platform.machine()}, {time.perf_counter() - start:.0f} s.")  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
