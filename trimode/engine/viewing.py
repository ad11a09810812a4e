"""What somebody sees who watches a request: tokens that are settled, and slots of the open canvas. Pure functions."""

import math
from collections.abc import Sequence
from itertools import groupby

from trimode.engine.detokenizer import LONG, Detokenizer
from trimode.engine.events import Named, Slot, SlotState
from trimode.engine.witness import Places, Sight
from trimode.numerics.acceptance import accepted_length
from trimode.tokenizer import Tokenizer

Seen = tuple[int | None, SlotState, Named | None]  # a token, what became of it, what was said where it was chosen


def final(guesses: Sequence[int], named: Sequence[Named]) -> list[Seen]:
    """Tokens that became final in places for which there were these guesses."""
    held = accepted_length(guesses, [one.token for one in named])

    def state(place: int) -> SlotState:
        return "accepted" if place < held else "revised" if place < len(guesses) else "fixed"

    return [(one.token, state(place), one) for place, one in enumerate(named)]


def rejected(guesses: Sequence[int], named: Sequence[Named], before: Places, first: int) -> tuple[int, list[Seen]]:
    """How many of the guesses from place `first` on held, and what becomes of the others."""
    held = accepted_length(guesses, [one.token for one in named])
    return held, [(guess, "rejected", before.get(first + i)) for i, guess in enumerate(guesses) if i >= held]


def opened(before: Sight, after: Sight, first: int, mask_token_id: int | None) -> list[Seen]:
    """The slots of the canvas that is open now, from place `first` on; `before`: as it was before this forward."""
    if after.canvas is None:
        return []
    old = before.canvas.tokens if before.canvas else ()
    out: list[Seen] = []
    for slot, token in enumerate(after.canvas.tokens):
        was = old[slot] if slot < len(old) else mask_token_id
        if token == mask_token_id:
            out.append((None, "masked" if was == mask_token_id else "remasked", None))
        elif was not in (mask_token_id, token):
            out.append((token, "revised", after.filled[first + slot]))
        else:
            out.append((token, "draft" if slot in after.canvas.unsure else "fixed", after.filled[first + slot]))
    return out


def slots(seen: Sequence[Seen], position: int, text: Sequence[int], tokenizer: Tokenizer | None) -> tuple[Slot, ...]:
    """From a position of the answer on, spelled as they would read behind `text`."""
    texts = spelled([token for token, _, _ in seen], text, tokenizer)
    return tuple(
        Slot(
            position=position + i, token=token, text=texts[i], state=state,
            confidence=None if named is None else math.exp(named.logprob),
            cause="low_confidence" if state == "remasked" else None,
        )
        for i, (token, state, named) in enumerate(seen)
    )  # fmt: skip


def spelled(tokens: Sequence[int | None], text: Sequence[int], tokenizer: Tokenizer | None) -> list[str]:
    """A text for each token, none for masks; neighbours are decoded together, each run as if it stood behind `text`."""
    out: list[str] = []
    for is_mask, run in groupby(tokens, lambda token: token is None):
        if is_mask or tokenizer is None:
            out += ["" for _ in run]
            continue
        read = Detokenizer(tokenizer)
        for known in text[-LONG // 2 :]:
            read.add(known)
        read.piece()
        pieces = []
        for token in run:
            assert token is not None
            read.add(token)
            pieces.append(read.piece())
        pieces[-1] += read.piece(is_last=True)
        out += pieces
    return out
