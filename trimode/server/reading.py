"""A checked body -> what is asked of the engine. A field is honoured exactly, known to have no effect, or refused."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from trimode.decoding import MODES, options
from trimode.decoding.aliases import canonical_mode, canonical_option, canonical_placement, meant
from trimode.numerics.parameters import MASK64, PARAMETERS
from trimode.server.body import Body, Message
from trimode.server.refusals import Refused

ENDS = ("stop_token_ids", "ignore_eos")
WITHOUT_EFFECT = ("user", "metadata", "service_tier", "safety_identifier", "prompt_cache_key")
# Fields of OpenAI's and vLLM's that nobody honours here yet, with the values that ask for nothing.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "best_of": (1,), "suffix": ("",), "logprobs": (False,), "top_logprobs": (0,), "prompt_logprobs": (),
    "echo": (False,),    "response_format": ({"type": "text"},), "tools": ([],), "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False), "functions": ([],), "function_call": ("none",), "store": (False,),
    "modalities": (["text"],), "audio": (), "prediction": (), "reasoning_effort": ("none",),
    "length_penalty": (1.0,), "use_beam_search": (False,), "early_stopping": (False,),
    "skip_special_tokens": (True,), "spaces_between_special_tokens": (True,), "include_stop_str_in_output": (False,),
    "verbosity": (), "previous_response_id": (), "include": ([],),
    "background": (False,), "truncation": ("disabled",), "text": ({"format": {"type": "text"}},), "reasoning": (),
    "conversation": (), "max_tool_calls": (),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request, read. `options` are those of `LLM.submit`; `warnings` what was passed over because we are lenient."""

    n: int
    options: Mapping[str, Any]
    stream: bool
    include_usage: bool
    echo: bool
    denoise: bool  # the stream shows the canvas, too
    scores_prompt: bool  # log-probabilities of the prompt are told apart from the text
    warnings: tuple[str, ...] = ()


def parse(model: type[Body], document: Any, lenient: bool = False) -> tuple[Any, tuple[str, ...]]:
    """A document as a body, and the warnings about it. Raises Refused."""
    if not isinstance(document, dict):
        raise Refused(400, "the body is no JSON object")
    spelled = _spelled(document)
    try:
        body = model.model_validate(spelled)
    except ValidationError as error:
        raise _refusal(error) from None
    return body, _strangers(body.model_extra or {}, lenient)


def read(body: Any, warnings: tuple[str, ...], defaults: Mapping[str, Any], mode: str) -> Ask:
    """What a body asks for. `defaults` are the server's parameters of modes, `mode` that of who names none."""
    given = {name: getattr(body, name) for name in type(body).model_fields if getattr(body, name) is not None}
    mode = canonical_mode(given.get("generation_mode", mode))
    known = options(mode) if mode in MODES else {}
    chosen = {name: value for name, value in defaults.items() if name in known}
    every = {name: item for each in MODES for name, item in options(each).items()}
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
    limit = given.get("max_completion_tokens", given.get("max_output_tokens", given.get("max_tokens")))
    if limit is not None:
        chosen["max_tokens"] = limit
    chosen |= _log_probabilities(given)
    streamed = given.get("stream_options")
    _check_stream(given, chosen)
    return Ask(
        n=given.get("n", 1), options=chosen, stream=given.get("stream", False), echo=given.get("echo", False),
        include_usage=bool(streamed and streamed.include_usage), denoise=_is_denoise(given),
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


def turns(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Messages as a chat template takes them."""
    found = []
    for index, message in enumerate(messages):
        for name, value in (message.model_extra or {}).items():
            if value not in (None, [], ""):
                raise Refused(400, f"messages[{index}].{name} is not supported, leave it out", param="messages")
        content = message.content
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        named = {} if message.name is None else {"name": message.name}
        found.append({"role": message.role, "content": text, **named})
    return found


def _spelled(document: Mapping[str, Any]) -> dict[str, Any]:
    """Our words for the fields; an `extra_body` that a client has sent as such is unwrapped."""
    fields = dict(document)
    inner = fields.pop("extra_body", None)
    if inner is not None and not isinstance(inner, dict):
        raise Refused(400, "extra_body is no JSON object", param="extra_body")
    found: dict[str, Any] = {}
    for name, value in (*fields.items(), *(inner or {}).items()):
        ours = canonical_option(name)
        if ours in found and found[ours] != value:
            raise Refused(400, f"{name} is given twice, with different values", param=name)
        found[ours] = value
    if isinstance(found.get("placement"), str):
        found["placement"] = canonical_placement(found["placement"])
    return found


def _strangers(extra: Mapping[str, Any], lenient: bool) -> tuple[str, ...]:
    """Refuse fields that would be ignored, unless they ask for nothing, have no effect anywhere, or we are lenient."""
    found = []
    for name, value in extra.items():
        if value is None or name in WITHOUT_EFFECT or any(_same(value, one) for one in NEUTRAL.get(name, ())):
            continue
        if not lenient:
            raise Refused(400, _why(name), param=name[:128], code="unsupported_parameter")
        found.append(name[:128])
    return tuple(found)


def _same(value: Any, other: Any) -> bool:
    """Equal and of one kind: 1 is not true."""
    return bool(type(value) is type(other) and value == other)


def _why(name: str) -> str:
    if name not in NEUTRAL:
        return f"{name[:128]!r} is not a field of this endpoint"
    allowed = " or ".join(map(repr, (*NEUTRAL[name], None)))
    return f"{name} is not supported yet, allowed is {allowed}"


def _refusal(error: ValidationError) -> Refused:
    """The first thing that is wrong, in a sentence."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = [str(part) for part in first["loc"]]
    param = path[0] if path else None
    where = ".".join(part for part in path if not part.startswith(("function-", "constrained-", "list[")))
    if first["type"] == "missing":
        return Refused(400, f"{where} is missing", param=param, code="missing_required_parameter")
    return Refused(400, f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}", param=param)
