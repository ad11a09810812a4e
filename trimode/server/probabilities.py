"""Log-probabilities as OpenAI's endpoints and vLLM tell them. Knows tokens and their spelling, no request."""

from collections.abc import Callable, Sequence
from itertools import accumulate

from trimode.engine.events import Named
from trimode.server.dialect import Json

Spell = Callable[[int], bytes]


def of_conversation(named: Sequence[Named], spell: Spell) -> Json:
    """`logprobs` of a choice of a chat completion."""
    content = [
        _entry(one.token, one.logprob, spell) | {"top_logprobs": [_entry(*likely, spell) for likely in one.best]}
        for one in named
    ]
    return {"content": content, "refusal": None}


def of_completion(named: Sequence[Named | None], tokens: Sequence[int], spell: Spell, offset: int) -> Json:
    """`logprobs` of a choice of a completion, `offset` characters before it. None: nothing is known of a token."""
    return {
        "tokens": [_word(token, spell) for token in tokens],
        "token_logprobs": [None if one is None else one.logprob for one in named],
        "top_logprobs": [None if one is None else _likeliest(one, spell) for one in named],
        "text_offset": list(accumulate((n_characters(token, spell) for token in tokens[:-1]), initial=offset)),
    }


def n_characters(token: int, spell: Spell) -> int:
    """How far a token moves the offset; each byte of a part of a character counts as one."""
    return len(spell(token).decode(errors="replace"))


def of_prompt(named: Sequence[Named | None], spell: Spell) -> list[Json | None]:
    """vLLM's `prompt_logprobs`: by token id, the token that stands there among them."""
    return [None if one is None else _ranked(one, spell) for one in named]


def _ranked(one: Named, spell: Spell) -> Json:
    ranks = [(token, logprob, rank) for rank, (token, logprob) in enumerate(one.best, start=1)]
    return {
        str(token): {"logprob": logprob, "rank": rank, "decoded_token": spell(token).decode(errors="replace")}
        for token, logprob, rank in [*ranks, (one.token, one.logprob, one.rank)]
    }


def _entry(token: int, logprob: float, spell: Spell) -> Json:
    spelled = spell(token)
    return {"token": spelled.decode(errors="replace"), "logprob": logprob, "bytes": list(spelled)}


def _likeliest(one: Named, spell: Spell) -> Json:
    """By word, the token itself among them, whether it is one of the likeliest or not."""
    return {_word(token, spell): logprob for token, logprob in [*one.best, (one.token, one.logprob)]}


def _word(token: int, spell: Spell) -> str:
    """A token as a text; of a part of a character the bytes, as OpenAI writes them."""
    spelled = spell(token)
    try:
        return spelled.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelled)
