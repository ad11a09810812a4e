"""Train the bundled tokenizer: byte-level BPE of 4,096, words without spaces, digits split, 32 reserved ids first.

python -m recipes.tokenizer OUT_FOLDER
"""

import json
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from trimode.evaluation.tasks import TASKS, example
from trimode.training.corpus import apart, list_files, read_files

LISTING = Path(__file__).with_name("stdlib_files.json")
VOCABULARY = 4096
RESERVED = [
    "<|pad|>", "<|bos|>", "<|eos|>", "<|mask|>", "<|im_start|>", "<|im_end|>",
    "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|hole_end|>", "<|expand|>", "<|delete|>",
    "<think>", "</think>", "<|tool|>", "<|image|>", *(f"<|spare_{i}|>" for i in range(16)),
]  # fmt: skip
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# A word is the same tokens wherever it stands: no space, quote or bracket ever belongs to it, so writing it again is a
# copy and not a table of pairs (" fork" to "fork"), which a small model learns word by word. A run of capitals is
# letters, which is what changing the case of a word asks for. All else, white space too, is one run.
WORDS = r"\p{Lu}?\p{Ll}+|\p{L}|\p{N}|[^\p{L}\p{N}]+"


def library() -> Path:
    """Where this interpreter keeps its standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def texts() -> list[str]:
    """Half code, half tasks, so that both are short in tokens."""
    code = read_files(LISTING, library(), "train")
    tasks = (example(name, "train", 0, index) for name in TASKS for index in range(4000))
    return code + [task.prompt + task.answer for task in tasks]


def main(out: Path) -> None:
    if not LISTING.exists():
        files, dropped = apart(list_files(library()), library())
        python = sys.version.split()[0]
        listing = {"python": python, "licence": "PSF-2.0", "files": files, "near_duplicates": dropped}
        LISTING.write_text(json.dumps(listing, indent=1) + "\n", "utf-8")
    train_tokenizer(out, texts(), VOCABULARY)


def train_tokenizer(out: Path, texts: Iterable[str], vocabulary: int) -> None:
    """Byte-level BPE of `vocabulary` tokens, the reserved ones first, as a folder."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    assert len(RESERVED) == 32
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=RESERVED, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(texts, trainer)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    settings = {"bos_token": "<|bos|>", "eos_token": "<|eos|>", "pad_token": "<|pad|>", "chat_template": CHAT}
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
