"""Lay out the tutorial: a toy Qwen3-shaped model without weights yet, a tokenizer without a mask, data, five recipes.

python -m recipes.toy_base OUT [--rows 20000]

cd OUT
trimode train ar.toml                                    # an ordinary causal model: runs/ar/final
trimode convert runs/ar/final --out converted --block-size 16
trimode train joint.toml                                 # tri-mode; then sft.toml, lora.toml, drafter.toml
"""

import argparse
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from trimode.evaluation.tasks import Split, example

RECIPES = Path(__file__).with_name("toy")
ASSETS = Path(__file__).parent.parent / "trimode" / "assets"
FIELDS = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "dtype": "float32", "vocab_size": 4096,
    "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "rms_norm_eps": 1e-6, "hidden_act": "silu", "attention_bias": False,
    "max_position_embeddings": 2048, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "use_sliding_window": False, "tie_word_embeddings": True, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": [2, 5],
}  # fmt: skip
MASK, SPARE = "<|mask|>", "<|spare_16|>"  # as an ordinary model's tokenizer has it: id 3 is nothing yet
TASKS = ("class", "function", "json", "sort", "text")  # what the base learns, later as a chat
DOMAIN = ("csv",)  # what it has never seen: for the adapter
HELDOUT = 50  # rows held out, per file of training rows


def rows(tasks: tuple[str, ...], split: Split, count: int, chat: bool) -> Iterator[dict[str, object]]:
    """Row i is a pure function of i: a prompt and its one answer, plain or as a chat."""
    for index in range(count):
        drawn = example(tasks[index % len(tasks)], split, 0, index)
        if chat:
            yield {
                "messages": [{"role": "user", "content": drawn.prompt}, {"role": "assistant", "content": drawn.answer}]
            }
        else:
            yield {"prompt": drawn.prompt, "completion": drawn.answer}


def write_rows(path: Path, lines: Iterable[dict[str, object]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def write_data(folder: Path, count: int) -> None:
    """train.jsonl, chat.jsonl (a quarter as long) and domain.jsonl, each with its heldout-*.jsonl."""
    folder.mkdir(parents=True)
    for name, tasks, share, chat in (
        ("train", TASKS, 1, False),
        ("chat", TASKS, 4, True),
        ("domain", DOMAIN, 4, False),
    ):
        write_rows(folder / f"{name}.jsonl", rows(tasks, "train", count // share, chat))
        write_rows(folder / f"heldout-{name}.jsonl", rows(tasks, "heldout", HELDOUT, chat))


def write_model(folder: Path) -> None:
    """config.json, and the bundled tokenizer with its mask turned into one more spare token."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(FIELDS, indent=2) + "\n", "utf-8")
    text = (ASSETS / "tokenizer.json").read_text("utf-8").replace(json.dumps(MASK), json.dumps(SPARE))
    (folder / "tokenizer.json").write_text(text, "utf-8")
    shutil.copyfile(ASSETS / "tokenizer_config.json", folder / "tokenizer_config.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=20_000)
    options = parser.parse_args()
    write(options.out, options.rows)
    print(f"{options.out}: next, in that folder: trimode train ar.toml")


def write(out: Path, count: int) -> None:
    """The whole folder; `count` rows of training data."""
    write_model(out / "fresh")
    write_data(out / "data", count)
    for recipe in sorted(RECIPES.glob("*.toml")):
        shutil.copyfile(recipe, out / recipe.name)


if __name__ == "__main__":
    main()
