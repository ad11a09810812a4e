"""A JSON document -> a body of which every field is known. One that would be ignored is refused by its name."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from trimode.decoding.aliases import canonical_option, canonical_placement
from trimode.server.body import Body, Message
from trimode.server.refusals import Refused

WITHOUT_EFFECT = ("user", "metadata", "service_tier", "safety_identifier", "prompt_cache_key")
WITHOUT_EFFECT_WITHIN = ("cache_control", "include_obfuscation")  # fields of fields
MOST_WARNED = 8  # fields that a header names
EXPECTED = {  # where a value may be of several kinds
    "prompt": "a text, token ids, or a list of either", "content": "a text or a list of texts",
    "input": "a text or a list of messages", "system": "a text or a list of texts",
    "stop": "a text, or up to 16 of them",
}  # fmt: skip
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


def parse(model: type[Body], document: Any, lenient: bool = False) -> tuple[Any, tuple[str, ...]]:
    """A document as a body, and the warnings about it. Raises Refused."""
    if not isinstance(document, dict):
        raise Refused(400, "the body is no JSON object")
    spelled = _spelled(document)
    try:
        body = model.model_validate(spelled)
    except ValidationError as error:
        raise _refusal(error) from None
    _check_within(body)
    return body, _strangers(body.model_extra or {}, lenient)


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


def warning(names: Sequence[str]) -> dict[str, str]:
    """A header that tells which fields were passed over, in characters that a header may hold."""
    if not names:
        return {}
    more = f" and {len(names) - MOST_WARNED} more" if len(names) > MOST_WARNED else ""
    return {"x-trimode-warning": f"ignored: {', '.join(map(ascii, names[:MOST_WARNED]))}{more}"}


def _check_within(body: Body, path: str = "") -> None:
    """Refuse fields of fields that nobody knows. Those of messages are for `turns` to judge."""
    for name in type(body).model_fields:
        value = getattr(body, name)
        inner = value if isinstance(value, list) else [value]
        for one in (one for one in inner if isinstance(one, Body)):
            for extra, given in ({} if isinstance(one, Message) else one.model_extra or {}).items():
                if given not in (None, [], "") and extra not in WITHOUT_EFFECT_WITHIN:
                    param = path.partition(".")[0] or name
                    raise Refused(400, f"{path}{name}.{extra[:128]} is not a field we know", param=param)
            _check_within(one, f"{path}{name}.")


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
    named = next((place for place, part in enumerate(path) if part in EXPECTED), None)
    if named is not None and len(path) > named + 1:
        return Refused(400, f"{'.'.join(path[: named + 1])}: {EXPECTED[path[named]]} is expected", param=param)
    where = ".".join(part for part in path if not part.startswith(("function-", "constrained-", "list[")))
    if first["type"] == "missing":
        return Refused(400, f"{where} is missing", param=param, code="missing_required_parameter")
    return Refused(400, f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}", param=param)
