"""A folder with all that a tiny run needs: texts, words, a geometry and a recipe of two stages."""

import json
from pathlib import Path

from tests.fakes import BYTES, byte_tokenizer
from tests.models.checkpoints import FIELDS

CONFIG = FIELDS | {
    "vocab_size": BYTES, "num_hidden_layers": 2, "dtype": "float32", "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}  # fmt: skip
RECIPE = """
out = "run"
[model]
config = "config.json"
tokenizer = "words"
[data]
train = ["texts.jsonl"]
heldout = ["heldout.jsonl"]
[defaults]
steps = 4
rows = 96
streams = 2
learning_rate = 0.01
warmup = 1
precision = "float32"
log_every = 1
save_every = 2
noise = { block_sizes = [4, 8] }
[[stage]]
name = "first"
kind = "ar"
[[stage]]
name = "second"
kind = "joint"
evaluate_every = 2
evaluate_batches = 1
"""


def write_words(folder: Path) -> None:
    """The byte tokenizer as a folder."""
    words = byte_tokenizer()
    folder.mkdir()
    words.backend.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": words.bos_token, "chat_template": words.chat_template}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")


def write_run(folder: Path, recipe: str = RECIPE) -> Path:
    """Everything under `folder`; gives the recipe's path."""
    write_words(folder / "words")
    (folder / "config.json").write_text(json.dumps(CONFIG), "utf-8")
    for name, start, stop in (("texts", 0, 12), ("heldout", 12, 16)):
        rows = [json.dumps({"text": f"{i} and {i} make {2 * i}."}) for i in range(start, stop)]
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n", "utf-8")
    (folder / "recipe.toml").write_text(recipe, "utf-8")
    return folder / "recipe.toml"


def metrics(folder: Path) -> list[dict[str, float]]:
    """The lines of a stage."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
