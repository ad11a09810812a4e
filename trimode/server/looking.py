"""The routes that write no text: what is served here, tokens, health, numbers."""

import asyncio
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from trimode.server.body import DetokenizeBody, TokenizeBody
from trimode.server.checking import parse
from trimode.server.exchange import answered, document
from trimode.server.metrics import Metrics
from trimode.server.reading import turns
from trimode.server.refusals import Refused
from trimode.server.schema import takes
from trimode.server.service import Service


def looking(service: Service) -> APIRouter:
    """/v1/models, /props, /version, /tokenize, /detokenize."""
    router = APIRouter()

    @router.get("/v1/models")
    async def models() -> Response:
        """The one model that is served."""
        return answered({"object": "list", "data": [model_card(service)]})

    @router.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        """The same, by its name."""
        service.check_model(name)
        return answered(model_card(service))

    @router.get("/props")
    async def properties() -> Response:
        """What is served, its limits, and the parameters of every mode."""
        return answered(service.properties())

    @router.get("/version")
    async def versions() -> Response:
        """The version of trimode."""
        return answered({"version": version("trimode")})

    @router.post("/tokenize", openapi_extra=takes(TokenizeBody))
    async def tokenize(request: Request) -> Response:
        """The tokens of a text, or of a conversation as its prompt."""
        body, _ = parse(TokenizeBody, await document(request), service.settings.lenient)
        service.check_model(body.model)
        tokens = await asyncio.to_thread(tokens_of, service, body)
        return answered({"tokens": tokens, "count": len(tokens), "max_model_len": service.context})

    @router.post("/detokenize", openapi_extra=takes(DetokenizeBody))
    async def detokenize(request: Request) -> Response:
        """The text of tokens."""
        body, _ = parse(DetokenizeBody, await document(request), service.settings.lenient)
        service.check_model(body.model)
        known = service.llm.model.config.vocab_size
        if beyond := [token for token in body.tokens if token >= known]:
            raise Refused(400, f"tokens holds {beyond[0]}, allowed is 0 to {known - 1}", param="tokens")
        return answered({"prompt": await asyncio.to_thread(service.llm.tokenizer.decode, body.tokens)})

    return router


def watching(service: Service, metrics: Metrics) -> APIRouter:
    """/health, /ready, /metrics."""
    router = APIRouter()

    @router.get("/health")
    async def health() -> Response:
        """200 while the engine goes on, 503 where work waits and nothing moves."""
        if service.is_stalled:
            raise Refused(503, f"no forward for {service.worker.stalled_for:.0f} s while work waits")
        return answered({"status": "ok"})

    @router.get("/ready")
    async def ready() -> Response:
        """200 where a request would be let in now, 503 where the queue is full or the engine stalls."""
        if service.is_full(1):
            raise Refused(503, "the queue is full", headers={"Retry-After": "1"})
        return await health()

    @router.get("/metrics")
    async def scrape() -> Response:
        """Counters and gauges for Prometheus."""
        return PlainTextResponse(metrics.text(), media_type=metrics.media_type)

    return router


def tokens_of(service: Service, body: Any) -> list[int]:
    """A text's tokens, or those of a conversation as a prompt."""
    if (body.prompt is None) == (body.messages is None):
        raise Refused(400, "give either prompt or messages", param="prompt")
    llm = service.llm
    return llm.tokenizer.encode(body.prompt) if body.messages is None else llm.chat_prompt(turns(body.messages))


def model_card(service: Service) -> dict[str, Any]:
    """The model as OpenAI lists models, with vLLM's `max_model_len`."""
    return {"id": service.name, "object": "model", "created": 0, "owned_by": "trimode",
            "max_model_len": service.context}  # fmt: skip
