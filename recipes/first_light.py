"""Train the bundled checkpoint: an autoregressive stage, two joint stages, a short stage with long documents.

    python -m recipes.first_light TOKENIZER_FOLDER OUT_FOLDER [--scale 1.0] [--seed 0] [--stages more,long]

Every stage ends with its learning-rate decay, writes a whole checkpoint to OUT_FOLDER/<stage>, and starts from the one
the stage before has written, in this run or an earlier one.
"""

import argparse
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch

from recipes.tokenizer import LISTING, RESERVED, VOCABULARY, library
from trimode.evaluation.tasks import TASKS, example
from trimode.models.checkpoint import empty, family, load_model, save_model
from trimode.models.transformer import Transformer, initialise
from trimode.numerics.noise import Noise
from trimode.tokenizer import Tokenizer
from trimode.training.corpora import ProceduralCorpus
from trimode.training.corpus import read_files
from trimode.training.documents import Document, Special
from trimode.training.feed import Feed, fitted
from trimode.training.objectives import Joint
from trimode.training.optim import Rates
from trimode.training.trainer import Schedule, train

FIELDS = {
    "architectures": ["NemotronLabsDiffusionModel"], "model_type": "nemotron_labs_diffusion", "dtype": "bfloat16",
    "vocab_size": 4096, "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "rms_norm_eps": 1e-5, "hidden_act": "silu",
    "attention_bias": False, "mlp_bias": False, "max_position_embeddings": 2048,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "tie_word_embeddings": True,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": [2, 5], "mask_token_id": 3, "block_size": 32,
    "dlm_paradigm": "bidirectional", "ar_loss_weight": 1.0, "dlm_loss_weight": 1.0,
}  # fmt: skip
EOS, IM_START, IM_END = 2, 4, 5
CODE_SHARE, CHAT_SHARE = 0.1, 0.3
FEW_ROWS = 64  # fewer than a document takes on average, so that a stage sees none twice


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One sitting's part: how many steps of how many rows, with or without canvases."""

    name: str
    streams: int
    rows: int
    code_tokens: int
    copy_share: float  # documents that are random tokens twice, of which the second half is scored
    noise: Noise | None
    schedule: Schedule


def stages(scale: float) -> list[Stage]:
    """AR, joint twice, long; `scale` stretches all of them."""

    def stage(
        name: str, steps: int, streams: int, rows: int, code: int, copy: float, noise: Noise | None, rates: Rates
    ) -> Stage:
        schedule = Schedule(
            steps=int(steps * scale), rates=rates, objective=Joint(weights={"ar": 1.0, "diffusion": 1.0})
        )
        return Stage(
            name=name, streams=streams, rows=rows, code_tokens=code, copy_share=copy, noise=noise, schedule=schedule
        )

    noise = Noise(block_sizes=(8, 16, 32, 32), all_masked_share=0.5)
    return [
        stage("ar", 1800, 8, 256, 256, 0.0, None, Rates(muon=0.02, qkv=1.5e-3, adam=3e-3)),
        stage("joint", 2500, 4, 512, 224, 0.2, noise, Rates(muon=0.015, qkv=1e-3, adam=2e-3)),
        stage("more", 700, 4, 512, 224, 0.0, noise, Rates(muon=0.01, qkv=7e-4, adam=1.2e-3)),
        stage("long", 15, 1, 4096, 2000, 0.0, noise, Rates(muon=0.004, qkv=2e-4, adam=5e-4)),
    ]


def documents(tokenizer: Tokenizer, seed: int, code_tokens: int, copy_share: float) -> Callable[[int], Document]:
    """Document i as a pure function of (seed, i): a task, plain or as a chat turn, source code, or a bare copy."""
    files = [[*tokenizer.encode(text), EOS] for text in read_files(LISTING, library(), "train")]
    sizes = [len(file) for file in files]
    names = sorted(TASKS)
    user, assistant = tokenizer.encode("user\n"), tokenizer.encode("assistant\n")
    newline = tokenizer.encode("\n")

    def document(index: int) -> Document:
        rng = random.Random(f"{seed}/{index}")
        if copy_share and rng.random() < copy_share:
            half = rng.choices(range(len(RESERVED), VOCABULARY), k=rng.randint(8, 48))
            return Document.text((*half, *half), len(half))
        if rng.random() < CODE_SHARE:
            file = rng.choices(files, sizes)[0]
            start = rng.randrange(max(len(file) - code_tokens, 1))
            return Document.text(tuple(file[start : start + code_tokens]))
        task = example(rng.choice(names), "train", seed, index)
        prompt, answer = tokenizer.encode(task.prompt), tokenizer.encode(task.answer)
        if rng.random() < CHAT_SHARE:
            prompt = [IM_START, *user, *prompt, IM_END, *newline, IM_START, *assistant]
            return Document.text((*prompt, *answer, IM_END), len(prompt))
        return Document.text((*prompt, *answer, EOS), len(prompt))

    return document


def run(stage: Stage, model: Transformer, tokenizer: Tokenizer, seed: int, out: Path) -> None:
    """Train one stage and write its checkpoint."""
    mask = model.config.mask_token_id
    document = documents(tokenizer, seed, stage.code_tokens, stage.copy_share)
    n = max(stage.schedule.steps * stage.streams * stage.rows // FEW_ROWS, 1)
    corpus, _ = fitted(ProceduralCorpus(n, document, f"first light {seed}"), stage.noise, rows=stage.rows)
    special = Special(mask_token_id=mask, eos_token_id=EOS)
    feed = Feed(corpus, stage.noise, special, seed=seed, rows=stage.rows, streams=stage.streams)
    batches = (batch for step in count() for batch in feed.batches(step, micro=stage.streams))
    folder = out / stage.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.jsonl").unlink(missing_ok=True)
    model.train().requires_grad_(True)
    train(model, batches, stage.schedule, folder / "log.jsonl")
    save_model(model, FIELDS, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", default="ar,joint,more,long")
    options = parser.parse_args()
    tokenizer = Tokenizer.load(options.tokenizer)
    model = empty(family(FIELDS).parse(FIELDS, None), torch.float32, torch.device("cpu"))
    initialise(model, options.seed)
    model.compile()
    before: Path | None = None
    for number, stage in enumerate(stages(options.scale)):
        if stage.name in options.stages.split(","):
            if before is not None:  # always from the written weights, so that one run and a chain of runs are the same
                model.load_state_dict(load_model(before, "float32").state_dict())
            start = time.perf_counter()
            run(stage, model, tokenizer, options.seed + number, options.out)
            for file in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copy(options.tokenizer / file, options.out / stage.name / file)
            print(f"{stage.name}: {time.perf_counter() - start:.0f} s", flush=True)
        before = options.out / stage.name


if __name__ == "__main__":
    main()
