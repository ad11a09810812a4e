"""A text with a hole as a prompt: laid out as infilling is trained, or what stands before the hole alone."""

from typing import Literal

from trimode.evaluation.suites import Item
from trimode.tokenizer import Tokenizer
from trimode.training.documents import Document, Special

Layout = Literal["suffix_first", "prefix_only"]


def layout(tokenizer: Tokenizer) -> Layout:
    """`suffix_first` where the checkpoint has the markers of prefix, suffix and middle."""
    return "prefix_only" if tokenizer.fim is None else "suffix_first"


def laid_out(tokenizer: Tokenizer, item: Item) -> tuple[int, ...]:
    """Token ids of an item that has a suffix: the model continues them with the middle.

    Prefix and suffix are encoded apart, for a hole may stand within a word.
    """
    prefix = tuple(tokenizer.encode(item.facts["prefix"]))
    if tokenizer.fim is None:
        return prefix
    suffix = tuple(tokenizer.encode(item.facts["suffix"]))
    around = Document(tokens=prefix + suffix, answers=())
    special = Special(mask_token_id=0, fim=tokenizer.fim)  # the mask has no part in a layout
    return around.suffix_first(len(prefix), len(prefix), special).tokens
