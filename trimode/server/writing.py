"""The routes that write text: a body is read, its prompts are queued, and answers go out whole or as a stream."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from trimode.server import answers
from trimode.server.answers import Head
from trimode.server.body import Body, ChatBody, CompletionBody
from trimode.server.exchange import answered, document, event, unless_gone
from trimode.server.reading import Ask, parse, read, turns
from trimode.server.refusals import Refused, error_body
from trimode.server.schema import takes
from trimode.server.service import Service
from trimode.server.worker import Ticket

SHORT_ANSWER = 16  # tokens of a completion that names no limit, as at OpenAI


def writing(service: Service) -> APIRouter:
    """/v1/chat/completions and /v1/completions."""
    router = APIRouter()

    @router.post("/v1/chat/completions", openapi_extra=takes(ChatBody))
    async def chat(request: Request) -> Response:
        """Answer a conversation."""
        body, ask = await asked(ChatBody, request, service)
        prompt = await asyncio.to_thread(service.llm.chat_prompt, turns(body.messages))
        return await written(request, service, head("chatcmpl", service), ask, [prompt], None)

    @router.post("/v1/completions", openapi_extra=takes(CompletionBody))
    async def complete(request: Request) -> Response:
        """Continue texts."""
        body, ask = await asked(CompletionBody, request, service)
        prompts = await asyncio.to_thread(encoded, service, body.prompt)
        return await written(request, service, head("cmpl", service), ask, prompts, SHORT_ANSWER)

    return router


async def asked(kind: type[Body], request: Request, service: Service) -> tuple[Any, Ask]:
    """The body, and what it asks for."""
    body, warnings = parse(kind, await document(request), service.settings.lenient)
    service.check_model(body.model)
    return body, read(body, warnings, service.settings.decoding, service.mode)


def encoded(service: Service, prompt: Any) -> list[list[int]]:
    """A text, tokens, or a list of either, as tokens."""
    many = prompt if isinstance(prompt, list) and not isinstance(prompt[0], int) else [prompt]
    tokenizer = service.llm.tokenizer
    return [tokenizer.encode(one) if isinstance(one, str) else tokenizer.checked(one) for one in many]


async def written(
    request: Request, service: Service, top: Head, ask: Ask, prompts: Sequence[list[int]], usual: int | None
) -> Response:
    """Queue what is asked, and answer whole or in a stream. `usual`: tokens where no limit is named."""
    tickets = await service.submit(ask, prompts, usual)
    decode = service.llm.tokenizer.decode
    echoes = [decode(prompt) if ask.echo else "" for prompt in prompts for _ in range(ask.n)]
    warned = {"x-trimode-warning": f"ignored: {', '.join(ask.warnings)}"} if ask.warnings else {}
    if ask.stream:
        chunks = streamed(service, top, ask, tickets, echoes, len(prompts))
        quiet = {"cache-control": "no-cache", "x-accel-buffering": "no"} | warned
        return StreamingResponse(chunks, media_type="text/event-stream", headers=quiet)
    done = await unless_gone(request, service.finish(tickets))
    return (
        Response(status_code=499) if done is None else answered(answers.answer(top, done, len(prompts), echoes), warned)
    )


async def streamed(
    service: Service, top: Head, ask: Ask, tickets: Sequence[Ticket], echoes: Sequence[str], n_prompts: int
) -> AsyncIterator[bytes]:
    """Server-sent events: final text alone, in order, then what it cost where that is asked, then [DONE]."""
    for index, echo in enumerate(echoes):
        yield event(answers.opening(top, index, echo))
    try:
        async for index, found in service.merged(tickets):
            if found.text:
                yield event(answers.piece(top, index, found.text))
            if found.finish:
                yield event(answers.ending(top, index, found.finish))
        if ask.include_usage:
            yield event(answers.account(top, service.completions(tickets), n_prompts))
        yield b"data: [DONE]\n\n"
    except Refused as error:
        yield event(error_body(error))


def head(prefix: str, service: Service) -> Head:
    """The top of an answer that is made now."""
    return Head(
        id=f"{prefix}-{secrets.token_hex(12)}", created=int(time.time()), model=service.name,
        is_chat=prefix == "chatcmpl",
    )  # fmt: skip
