"""The routes that write text: a body is read, its prompts are queued, and answers go out whole or as a stream."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from trimode.engine.completion import completion
from trimode.engine.events import Event
from trimode.server.answers import Continuation, Conversation, Kind, OpenAI
from trimode.server.body import Body, ChatBody, CompletionBody, MessagesBody, ResponsesBody
from trimode.server.checking import parse, warning
from trimode.server.dialect import Dialect, seen
from trimode.server.exchange import answered, document, unless_gone, with_pings
from trimode.server.messages import Anthropic
from trimode.server.reading import Ask, read, turns
from trimode.server.refusals import Refused
from trimode.server.responses import Responses
from trimode.server.schema import takes
from trimode.server.service import Service
from trimode.server.worker import Ticket

SHORT_ANSWER = 16  # tokens of a completion that names no limit, as at OpenAI
Prompts = Sequence[list[int]]


def writing(service: Service) -> APIRouter:
    """/v1/chat/completions, /v1/completions, /v1/responses and /v1/messages."""
    router = APIRouter()

    @router.post("/v1/chat/completions", openapi_extra=takes(ChatBody))
    async def chat(request: Request) -> Response:
        """Answer a conversation."""
        body, ask = await asked(ChatBody, request, service)
        prompt = await asyncio.to_thread(service.llm.chat_prompt, turns(body.messages))
        form = openai(service, ask, Conversation(), [prompt])
        return await written(request, service, form, ask, [prompt], None)

    @router.post("/v1/completions", openapi_extra=takes(CompletionBody))
    async def complete(request: Request) -> Response:
        """Continue texts."""
        body, ask = await asked(CompletionBody, request, service)
        prompts = await asyncio.to_thread(encoded, service, body.prompt)
        form = openai(service, ask, Continuation(), prompts)
        return await written(request, service, form, ask, prompts, SHORT_ANSWER)

    @router.post("/v1/responses", openapi_extra=takes(ResponsesBody))
    async def respond(request: Request) -> Response:
        """Answer a text or a conversation, and remember nothing."""
        body, ask = await asked(ResponsesBody, request, service)
        prompt = await asyncio.to_thread(service.llm.chat_prompt, turns(body.conversation, "input"))
        repeated = ("instructions", "max_output_tokens", "temperature", "top_p")
        form = Responses(
            model=service.name, n_prompt=len(prompt), asked={name: getattr(body, name) for name in repeated}
        )
        return await written(request, service, form, ask, [prompt], None)

    @router.post("/v1/messages", openapi_extra=takes(MessagesBody))
    async def message(request: Request) -> Response:
        """Answer a conversation, as Anthropic's API."""
        body, ask = await asked(MessagesBody, request, service)
        prompt = await asyncio.to_thread(service.llm.chat_prompt, turns(body.conversation))
        form = Anthropic(model=service.name, n_prompt=len(prompt))
        return await written(request, service, form, ask, [prompt], None)

    return router


async def asked(kind: type[Body], request: Request, service: Service) -> tuple[Any, Ask]:
    """The body, and what it asks for, where that is not too much."""
    body, warnings = await asyncio.to_thread(parse, kind, await document(request), service.settings.lenient)
    service.check_model(body.model)
    ask = read(body, warnings, service.settings.decoding, service.mode, service.llm.model.config)
    service.check_load(len(several(getattr(body, "prompt", ""))) * ask.n)
    return body, ask


def several(prompt: Any) -> list[Any]:
    """The prompts of a text, of tokens, or of a list of either."""
    return prompt if isinstance(prompt, list) and not isinstance(prompt[0], int) else [prompt]


def openai(service: Service, ask: Ask, kind: Kind, prompts: Prompts) -> OpenAI:
    """The form of answers to these prompts, `ask.n` to each."""
    tokenizer = service.llm.tokenizer
    return OpenAI(
        model=service.name, kind=kind, prompts=[prompt for prompt in prompts for _ in range(ask.n)],
        spell=tokenizer.spelled, n_prompts=len(prompts), echo=tokenizer.decode if ask.echo else None,
        tells="logprobs" in ask.options, scores=ask.scores_prompt, include_usage=ask.include_usage,
        usage_throughout=ask.usage_throughout,
    )  # fmt: skip


def encoded(service: Service, prompt: Any) -> list[list[int]]:
    """A text, tokens, or a list of either, as tokens."""
    tokenizer = service.llm.tokenizer
    return [tokenizer.encode(one) if isinstance(one, str) else tokenizer.checked(one) for one in several(prompt)]


async def written(
    request: Request, service: Service, form: Dialect, ask: Ask, prompts: Prompts, usual: int | None
) -> Response:
    """Queue what is asked, and answer whole or in a stream. `usual`: tokens where no limit is named."""
    tickets, warned = await service.submit(ask, prompts, usual), warning(ask.warnings)
    if ask.stream:
        quiet = {"cache-control": "no-cache", "x-accel-buffering": "no"} | warned
        parts = with_pings(streamed(service, form, tickets), service.settings.ping_seconds)
        return StreamingResponse(parts, media_type="text/event-stream", headers=quiet)
    done = await unless_gone(request, service.finish(tickets))
    return Response(status_code=499) if done is None else answered(form.whole(done), warned)


async def streamed(service: Service, form: Dialect, tickets: Sequence[Ticket]) -> AsyncGenerator[bytes]:
    """Server-sent events: final text alone, in order."""
    has_begun = False
    try:
        async with aclosing(service.merged(tickets)) as events:
            async for index, event in events:
                for chunk in () if has_begun else form.start():  # not before: whoever waits for it waits for the model
                    yield chunk
                has_begun = True
                for chunk in told(form, index, event, tickets[index]):
                    yield chunk
        for chunk in form.close([completion(ticket.request) for ticket in tickets]):
            yield chunk
    except Refused as error:
        for chunk in form.fail(error):
            yield chunk


def told(form: Dialect, index: int, event: Event, ticket: Ticket) -> Iterator[bytes]:
    """One event of a choice."""
    if event.view:
        yield from form.look(index, seen(event))
    yield from form.piece(index, event)
    if event.finish:
        yield from form.end(index, completion(ticket.request))
