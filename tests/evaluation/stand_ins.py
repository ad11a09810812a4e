"""A loaded model of random weights that reads bytes, and a suite of a few prompts judged by the answer's length."""

from functools import lru_cache

from tests.fakes import BYTES, byte_tokenizer, lively_model
from trimode.api import LLM
from trimode.evaluation.suites import Item, Suite


@lru_cache
def random_llm(seed: int = 0) -> LLM:
    return LLM(lively_model(seed, vocab_size=BYTES), byte_tokenizer())


def letters(n: int = 3, *, name: str = "letters", judged: bool = True, room: int = 12) -> Suite:
    """n prompts, an answer is right if it has an even number of characters."""

    def items(limit: int | None, seed: int) -> list[Item]:
        count = n if limit is None else min(n, limit)
        return [
            Item(task=name, key=f"{seed}/{i}", prompt=f"write {i}:" * (i + 1), max_tokens=room, reference=f"yes {i}")
            for i in range(count)
        ]

    return Suite(name=name, items=items, judge=lambda item, text: len(text) % 2 == 0 if judged else None)
