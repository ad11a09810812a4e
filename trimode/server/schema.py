"""The OpenAPI description of bodies that the routes read themselves."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from trimode.server.body import (
    Body,
    ChatBody,
    CompletionBody,
    DetokenizeBody,
    MessagesBody,
    ResponsesBody,
    TokenizeBody,
)

BODIES: tuple[type[Body], ...] = (ChatBody, CompletionBody, ResponsesBody, MessagesBody, DetokenizeBody, TokenizeBody)
PLACE = "#/components/schemas/{model}"


def takes(body: type[Body]) -> dict[str, Any]:
    """What a route says of its body."""
    schema = {"$ref": PLACE.format(model=body.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def describe(app: FastAPI) -> None:
    """Let the description hold the bodies. Mutates."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(title=app.title, version=app.version, routes=app.routes)
            schemas = found.setdefault("components", {}).setdefault("schemas", {})
            for body in BODIES:
                schema = body.model_json_schema(ref_template=PLACE)
                schemas |= schema.pop("$defs", {}) | {body.__name__: schema}
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
