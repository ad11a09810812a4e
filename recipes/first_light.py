"""Lay out the bundled model's training: fresh network, data, recipe.

python -m recipes.tokenizer TOK
python -m recipes.first_light TOK OUT [--rows 60000]
trimode train OUT/first_light.toml        # ar, joint, more, long

The shipped weights were made by the same stages of an earlier trainer; see trimode/assets/README.md.
"""

import argparse
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from recipes.tokenizer import LISTING, RESERVED, VOCABULARY, library
from recipes.toy_base import write_rows
from trimode.evaluation.tasks import TASKS, example
from trimode.tokenizer import Tokenizer
from trimode.training.corpus import read_files

FIELDS = {
    "architectures": ["NemotronLabsDiffusionModel"], "model_type": "nemotron_labs_diffusion", "dtype": "bfloat16",
    "vocab_size": 4096, "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "rms_norm_eps": 1e-5, "hidden_act": "silu",
    "attention_bias": False, "mlp_bias": False, "max_position_embeddings": 2048,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "tie_word_embeddings": True,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": [2, 5], "mask_token_id": 3, "block_size": 32,
    "dlm_paradigm": "bidirectional", "ar_loss_weight": 1.0, "dlm_loss_weight": 1.0,
}  # fmt: skip
CHAT_SHARE = 0.3
CODE_EVERY = 4  # of the library's files: about a tenth of all documents


def tasks(count: int) -> Iterator[dict[str, object]]:
    """Row i is a pure function of i: a task, plain or as a chat turn."""
    names = sorted(TASKS)
    for index in range(count):
        rng = random.Random(f"0/{index}")
        drawn = example(rng.choice(names), "train", 0, index)  # type: ignore[arg-type]
        if rng.random() < CHAT_SHARE:
            turns = (("user", drawn.prompt), ("assistant", drawn.answer))
            yield {"messages": [{"role": role, "content": text} for role, text in turns]}
        else:
            yield {"prompt": drawn.prompt, "completion": drawn.answer}


def copies(count: int, tokenizer: Tokenizer) -> Iterator[dict[str, object]]:
    """Random tokens as text, to be written again: what teaches a small model to copy."""
    for index in range(count):
        rng = random.Random(f"copy/{index}")
        text = tokenizer.decode(rng.choices(range(len(RESERVED), VOCABULARY), k=rng.randint(8, 48)))
        yield {"prompt": text + "\n", "completion": text}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=60_000)
    options = parser.parse_args()
    fresh, data = options.out / "fresh", options.out / "data"
    fresh.mkdir(parents=True)
    data.mkdir()
    (fresh / "config.json").write_text(json.dumps(FIELDS, indent=2) + "\n", "utf-8")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(options.tokenizer / file, fresh / file)
    write_rows(data / "tasks.jsonl", tasks(options.rows))
    write_rows(data / "copies.jsonl", copies(options.rows // 4, Tokenizer.load(fresh)))
    write_rows(data / "code.jsonl", ({"text": text} for text in read_files(LISTING, library(), "train")[::CODE_EVERY]))
    shutil.copy(Path(__file__).with_suffix(".toml"), options.out)


if __name__ == "__main__":
    main()
