"""What may be asked of the engine: each check refuses with a sentence. Looks at values alone and changes nothing."""

from collections.abc import Sequence

from trimode.engine.request import Request
from trimode.errors import InvalidInput
from trimode.models.adapters import Adapter
from trimode.models.transformer import Model

MOST_LOGPROBS = 20  # likeliest tokens told of one place, as at OpenAI


def check_going(request: Request, what: str) -> None:
    """A request that has ended cannot go on."""
    if request.finish is not None:
        raise InvalidInput(f"request {request.id} has ended ({request.finish}), only a running one can be {what}")


def check_adapter(model: Model, adapter: Adapter | None, draft: bool) -> None:
    """A forward that takes adapters, and one made for all rows, or for those of drafts."""
    if adapter is None:
        return
    if not getattr(model, "takes_adapters", False):
        raise InvalidInput(f"{type(model).__name__} has no adapters, and {adapter.name!r} was asked for")
    if adapter.draft != draft:
        made, asked = ("drafts", "all rows") if adapter.draft else ("all rows", "drafts")
        raise InvalidInput(f"adapter {adapter.name!r} was made for {made} and is asked for {asked}")


def check_limits(max_tokens: int, stop: Sequence[object]) -> None:
    """At least one token, and stop strings that are not empty."""
    if type(max_tokens) is not int or max_tokens < 1:
        raise InvalidInput(f"max_tokens is {max_tokens!r}, allowed is an integer of at least 1")
    for text in stop:
        if not isinstance(text, str) or not text:
            raise InvalidInput(f"stop holds {text!r}, allowed are texts of at least one character")


def check_logprobs(logprobs: object, prompt_logprobs: object, commit_block: int) -> None:
    """Numbers of likeliest tokens; a prompt that is committed in whole blocks is not read left to right."""
    for name, n in (("logprobs", logprobs), ("prompt_logprobs", prompt_logprobs)):
        if n is not None and (type(n) is not int or not 0 <= n <= MOST_LOGPROBS):
            raise InvalidInput(f"{name} is {n!r}, allowed is 0 to {MOST_LOGPROBS}, or None")
    if prompt_logprobs is not None and commit_block > 1:
        raise InvalidInput(
            "prompt_logprobs needs a checkpoint whose committed tokens are causal, here blocks see both ways"
        )


def check_prompt(prompt: Sequence[int], vocab_size: int, mask_token_id: int | None, context_length: int) -> None:
    """A prompt is non-empty, holds ids of the vocabulary but no mask, and leaves room for at least one token."""
    if not prompt:
        raise InvalidInput("the prompt is empty, at least one token is needed")
    for position, token in enumerate(prompt):
        if type(token) is not int or not 0 <= token < vocab_size:
            raise InvalidInput(f"prompt token {position} is {token!r}, allowed is 0 to {vocab_size - 1}")
        if token == mask_token_id:
            raise InvalidInput(f"prompt token {position} is {token}, the mask, a reserved id that no prompt may hold")
    if len(prompt) >= context_length:
        raise InvalidInput(
            f"the prompt has {len(prompt)} tokens, the context holds {context_length} and one is needed for the answer"
        )
