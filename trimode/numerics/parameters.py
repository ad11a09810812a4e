"""How a request wants its tokens chosen: every sampling parameter with its default, range and help. No tensors.

    logits + logit_bias -> repetition_penalty -> frequency_penalty, presence_penalty -> bans (banned_token_ids, and the
    EOS ids before min_tokens) -> / temperature -> top_k -> top_p -> min_p -> a sample of what is left, renormalised

Temperature 0 takes the likeliest token after the bans, the lowest id among equals; what comes later in the chain could
not change that. Bias before penalties and penalties before the temperature is the order of vLLM and transformers;
top_k, top_p, min_p is that of transformers (vLLM cuts by min_p first). Definitions stand with the arithmetic, in
`processors`. The end of thinking, where it is due, is forced whatever the rest says.

A new parameter is a field of `Sampling`, a line of `SamplingOptions` and its arithmetic: Python, command line and batch
files read the fields.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypedDict

from trimode.errors import InvalidInput
from trimode.options import LARGEST, check_options, option

MASK64 = (1 << 64) - 1
STRONGEST_BIAS = 100.0  # OpenAI's range; enough to ban or to demand a token
BIAS_RULE = f"allowed are token ids with a bias of {-STRONGEST_BIAS} to {STRONGEST_BIAS}"


class SamplingOptions(TypedDict, total=False):
    """The fields of `Sampling` as keywords of `generate`, `stream` and `chat`."""

    temperature: float  # default: generation_config.json's, else 0 (greedy); so for top_k, top_p, repetition_penalty
    seed: int
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float] | Mapping[str, float]
    banned_token_ids: Sequence[int]
    min_tokens: int
    max_thinking_tokens: int | None
    end_think_token_id: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How one request chooses. temperature 0 is greedy; `choice` tells several answers to one prompt apart."""

    temperature: float = option(0.0, "0 is greedy (default: the checkpoint's, else 0)", low=0.0, high=LARGEST)
    seed: int = option(0, "same seed, same text, in ar and self_speculation alike", low=0, high=MASK64)
    choice: int = 0
    top_k: int = option(0, "choose among this many likeliest tokens; 0: among all", low=0)
    top_p: float = option(1.0, "choose among the likeliest that hold this probability", low=0.0, high=1.0, is_open=True)
    min_p: float = option(0.0, "drop tokens below this share of the likeliest one's probability", low=0.0, high=1.0)
    repetition_penalty: float = option(
        1.0, "weakens tokens of prompt and answer above 1, strengthens below", low=0.0, high=LARGEST, is_open=True
    )
    presence_penalty: float = option(0.0, "taken off the logits of tokens in the answer", low=-2.0, high=2.0)
    frequency_penalty: float = option(0.0, "the same, for each time a token is there", low=-2.0, high=2.0)
    logit_bias: tuple[tuple[int, float], ...] = option((), "ID=BIAS, added to a token's logit")  # takes a mapping too
    banned_token_ids: tuple[int, ...] = option((), "token ids never to be chosen")
    min_tokens: int = option(0, "no EOS before so many tokens", low=0)
    max_thinking_tokens: int | None = option(None, "the end of thinking is forced after so many tokens", low=0)
    end_think_token_id: int | None = option(None, "what ends the thinking (default: </think>)", low=0)

    # read off the fields above, once
    is_plain_greedy: bool = field(init=False, repr=False, compare=False)  # the likeliest token, and nothing else acts
    is_cut: bool = field(init=False, repr=False, compare=False)  # top_k, top_p or min_p act
    is_shaped: bool = field(init=False, repr=False, compare=False)  # more than a temperature acts
    reads_text: bool = field(init=False, repr=False, compare=False)  # what acts depends on the tokens before

    def __post_init__(self) -> None:
        check_options(self)
        if self.max_thinking_tokens is not None and self.end_think_token_id is None:
            raise InvalidInput("max_thinking_tokens needs end_think_token_id, the token that ends the thinking")
        object.__setattr__(self, "logit_bias", biases(self.logit_bias))
        object.__setattr__(self, "banned_token_ids", token_ids(self.banned_token_ids))
        cuts = self.temperature > 0 and (self.top_k > 0 or self.top_p < 1 or self.min_p > 0)
        thinks = self.max_thinking_tokens is not None
        bends = bool(self.logit_bias or self.banned_token_ids or self.min_tokens)
        object.__setattr__(self, "is_cut", cuts)
        object.__setattr__(self, "reads_text", self.has_penalties or thinks)
        object.__setattr__(self, "is_shaped", cuts or bends or self.reads_text)
        object.__setattr__(self, "is_plain_greedy", self.temperature == 0 and not self.is_shaped)

    @property
    def has_penalties(self) -> bool:
        """Whether tokens that are there already count."""
        return self.repetition_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0

    def check_against(
        self, vocab_size: int, eos_token_ids: Sequence[int], mask_token_id: int | None, max_tokens: int
    ) -> None:
        """Refuse ids outside the vocabulary, a forced mask, bans that leave nothing, and a minimum over the maximum."""
        end = () if self.end_think_token_id is None else (self.end_think_token_id,)
        named = {
            "logit_bias": dict(self.logit_bias),
            "banned_token_ids": self.banned_token_ids,
            "end_think_token_id": end,
        }
        for name, ids in named.items():
            for token in ids:
                if token >= vocab_size:
                    raise InvalidInput(f"{name} names token {token}, allowed is 0 to {vocab_size - 1}")
        if mask_token_id in end:
            raise InvalidInput(f"end_think_token_id is {mask_token_id}, the mask, which is never written")
        if len({mask_token_id, *eos_token_ids, *self.banned_token_ids} - {None}) >= vocab_size:
            raise InvalidInput(f"banned_token_ids leaves none of the {vocab_size} tokens to choose from")
        if self.min_tokens > max_tokens:
            raise InvalidInput(f"min_tokens is {self.min_tokens}, allowed is 0 to {max_tokens} (max_tokens)")


PARAMETERS = {item.name: item for item in fields(Sampling) if "help" in item.metadata}


def biases(given: Any) -> tuple[tuple[int, float], ...]:
    """A mapping of token ids to biases, or pairs of them, in order of ids. JSON's keys are texts: digits are fine."""
    try:
        pairs = list(given.items()) if isinstance(given, Mapping) else [(token, bias) for token, bias in given]
    except (TypeError, ValueError):
        raise InvalidInput(f"logit_bias is {given!r:.60}, {BIAS_RULE}") from None
    found: dict[int, float] = {}
    for token, bias in pairs:
        number = int(token) if isinstance(token, str) and re.fullmatch("[0-9]{1,10}", token) else token
        is_number = isinstance(bias, int | float) and not isinstance(bias, bool) and math.isfinite(bias)
        if type(number) is not int or number < 0 or not is_number or abs(bias) > STRONGEST_BIAS:
            raise InvalidInput(f"logit_bias holds {token!r}: {bias!r}, {BIAS_RULE}")
        found[number] = float(bias)
    return tuple(sorted(found.items()))


def token_ids(given: Any, name: str = "banned_token_ids") -> tuple[int, ...]:
    """A sequence of token ids, in order, each once. `name` is what the caller calls them."""
    if not isinstance(given, Iterable) or isinstance(given, str | bytes):
        raise InvalidInput(f"{name} is {given!r:.60}, allowed is a list of token ids")
    listed = list(given)
    for token in listed:
        if type(token) is not int or token < 0:
            raise InvalidInput(f"{name} holds {token!r}, allowed is a list of token ids")
    return tuple(sorted(set(listed)))
