"""What a client is told when it gets no answer: one shape, and one table from what went wrong to the status."""

import re
from typing import Any

from trimode.errors import InvalidInput, TrimodeError


class Refused(TrimodeError):
    """A request that gets no answer: status, sentence, the parameter it is about, and headers to send along."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.param, self.code, self.headers = status, param, code, headers or {}


KINDS = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    405: "invalid_request_error", 408: "timeout_error", 413: "invalid_request_error", 415: "invalid_request_error",
    429: "rate_limit_error", 431: "invalid_request_error", 500: "server_error", 503: "overloaded_error",
}  # fmt: skip
ANTHROPICS = "/v1/messages"
ANTHROPIC = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error",
}  # fmt: skip


def refused(error: Exception) -> Refused:
    """Any error as a refusal. What a user did wrong says so; of anything else only that it was ours."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, InvalidInput):
        return Refused(400, str(error), param=param_of(str(error)))
    return Refused(500, "the server failed while it worked on this request")


def param_of(sentence: str) -> str | None:
    """The parameter that a sentence of ours is about: `name is 3, allowed ...`, `messages[0].role is ...`."""
    found = re.match(r"(?:mode '\w+' )?([a-z][a-z_]*)(?:\[\d+\][\w.]*)? (?:is|holds|names|leaves|needs) ", sentence)
    if found:
        return "generation_mode" if found[1] == "mode" else found[1]  # as it is called here
    return "prompt" if sentence.startswith(("the prompt", "prompt token")) else None


def error_body(error: Refused, path: str = "") -> dict[str, Any]:
    """OpenAI's shape, or Anthropic's where the path is theirs."""
    if path.startswith(ANTHROPICS):
        return {"type": "error", "error": {"type": ANTHROPIC.get(error.status, "api_error"), "message": str(error)}}
    kind = KINDS.get(error.status, "server_error")
    return {"error": {"message": str(error), "type": kind, "param": error.param, "code": error.code}}
