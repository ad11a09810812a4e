"""A checked body -> what is asked of the engine, in our words. What contradicts itself is refused."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimode.config import ModelConfig
from trimode.decoding import MODES, every_option, options
from trimode.decoding.aliases import canonical_mode, meant
from trimode.numerics.parameters import MASK64, PARAMETERS
from trimode.server.body import Message
from trimode.server.refusals import Refused

ENDS = ("stop_token_ids", "ignore_eos")
LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request, read. `options` are those of `LLM.submit`; `warnings` what was passed over because we are lenient."""

    n: int
    options: Mapping[str, Any]
    stream: bool
    include_usage: bool
    usage_throughout: bool  # with every chunk
    asks: str  # the field that the prompt is made of
    echo: bool
    denoise: bool  # the stream shows the canvas, too
    scores_prompt: bool  # log-probabilities of the prompt are told apart from the text
    warnings: tuple[str, ...] = ()


def read(
    body: Any, warnings: tuple[str, ...], defaults: Mapping[str, Any], mode: str, config: ModelConfig | None = None
) -> Ask:
    """What a body asks for. `defaults` are the server's parameters of modes, `mode` that of who names none."""
    given = {name: getattr(body, name) for name in type(body).model_fields if getattr(body, name) is not None}
    mode = canonical_mode(given.get("generation_mode", mode))
    known = options(mode, config) if mode in MODES else {}
    chosen = {name: value for name, value in defaults.items() if name in known}
    every = every_option()
    chosen |= {name: meant(every[name], value) for name, value in given.items() if name in every}
    chosen |= {name: value for name, value in given.items() if name in PARAMETERS or name in ENDS}
    chosen["mode"] = mode
    chosen["seed"] = given["seed"] & MASK64 if "seed" in given else secrets.randbits(63)
    if chosen.get("top_k") == -1:
        chosen["top_k"] = 0
    if (stop := given.get("stop", given.get("stop_sequences"))) is not None:
        chosen["stop"] = [stop] if isinstance(stop, str) else stop
    if "stop" in given and "stop_sequences" in given:
        raise Refused(400, "stop and stop_sequences are both given, leave one out", param="stop")
    limits = {name: given[name] for name in LIMITS if name in given}
    if len(set(limits.values())) > 1:
        raise Refused(400, f"{' and '.join(limits)} differ, leave one out", param=next(iter(limits)))
    if limits:
        chosen["max_tokens"] = next(iter(limits.values()))
    if "cache_salt" in given:
        chosen["cache_salt"] = given["cache_salt"]
    chosen |= _log_probabilities(given)
    streamed = given.get("stream_options")
    _check_stream(given, chosen)
    return Ask(
        n=given.get("n", 1), options=chosen, stream=given.get("stream", False), echo=given.get("echo", False),
        include_usage=bool(streamed and streamed.include_usage), asks=body.asks,
        usage_throughout=bool(streamed and streamed.continuous_usage_stats), denoise=_is_denoise(given),
        scores_prompt="prompt_logprobs" in given, warnings=warnings,
    )  # fmt: skip


def _log_probabilities(given: Mapping[str, Any]) -> dict[str, int]:
    """How many likeliest tokens are to be told, of the answer and of the prompt; an echo is told like the answer."""
    asked, found = given.get("logprobs", False), {}
    if asked is True:  # of a conversation
        found["logprobs"] = given.get("top_logprobs", 0)
    elif given.get("top_logprobs"):
        raise Refused(400, "top_logprobs needs logprobs: true", param="top_logprobs")
    elif asked is not False:
        found["logprobs"] = asked
    if "prompt_logprobs" in given:
        found["prompt_logprobs"] = given["prompt_logprobs"]
    own = found.get("logprobs")
    if given.get("echo") and own is not None and found.setdefault("prompt_logprobs", own) != own:
        raise Refused(400, "an echo has the prompt's logprobs, leave prompt_logprobs out", param="prompt_logprobs")
    return found


def _is_denoise(given: Mapping[str, Any]) -> bool:
    mode, alias = given.get("stream_mode"), given.get("diffusing")
    if mode is not None and alias is not None and (mode == "denoise") != alias:
        raise Refused(400, f"stream_mode is {mode!r} and diffusing {alias}, leave one out", param="stream_mode")
    return mode == "denoise" or bool(alias)


def _check_stream(given: Mapping[str, Any], chosen: Mapping[str, Any]) -> None:
    """What only a stream can have, and what it cannot."""
    is_stream = given.get("stream", False)
    if given.get("stream_options") is not None and not is_stream:
        raise Refused(400, "stream_options is for stream: true", param="stream_options")
    if _is_denoise(given) and not is_stream:
        raise Refused(400, "stream_mode 'denoise' is for stream: true", param="stream_mode")
    if "prompt_logprobs" in chosen and is_stream:
        param = "prompt_logprobs" if "prompt_logprobs" in given else "logprobs"
        raise Refused(400, "log-probabilities of the prompt are not streamed, leave stream out", param=param)


def turns(messages: Sequence[Message], field: str = "messages") -> list[dict[str, str]]:
    """Messages as a chat template takes them; `field` is what the client calls them."""
    found = []
    for index, message in enumerate(messages):
        for name, value in (message.model_extra or {}).items():
            if value not in (None, [], ""):
                raise Refused(400, f"{field}[{index}].{name[:128]} is not supported, leave it out", param=field)
        content = message.content
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        named = {} if message.name is None else {"name": message.name}
        found.append({"role": message.role, "content": text, **named})
    return found
