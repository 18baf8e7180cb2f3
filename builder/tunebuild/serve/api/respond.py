"""Answers one request: a place first, then the prompt, then as many answers as were asked for.

A place is held by a ``with`` block around everything that is done for a request, and by nothing else. A plain
answer is made inside that block; a streamed one takes the block along, and holds it while the response is
sent, however that ends.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from tunebuild.prompt.messages import with_tools
from tunebuild.serve.api.answer import Answer, Piece
from tunebuild.serve.api.errors import ApiError, explain
from tunebuild.serve.api.schemas import ChatRequest, Common, CompletionRequest
from tunebuild.serve.api.shapes import Shape
from tunebuild.serve.api.tools import ToolUse, joined, tool_use
from tunebuild.serve.api.variables import allowed_variables
from tunebuild.serve.engines._constraint import grammar_problem
from tunebuild.serve.engines.base import Generation
from tunebuild.serve.service import Service

_HUNG_UP = 499  # as nginx logs it; nobody reads the answer


async def respond(
    service: Service, http: Request, body: ChatRequest | CompletionRequest, limit: int | None, shape: Shape
) -> Response:
    """The answer to a request.

    Args:
        service: ready or not.
        http: its connection.
        body: what it asks.
        limit: the longest answer that it wants.
        shape: of the answer.

    Raises:
        ApiError, Full, TooLong, PromptRefused, EngineFailed: what :func:`explain` turns into an answer.
    """
    if reason := service.not_ready():
        raise ApiError(503, f"not ready: {reason}", "not_ready", retry_after=1)
    check_model(service, body.model)
    with ExitStack() as stack:
        places = stack.enter_context(service.admission.enter())  # before any work: a full house costs nothing
        prompts, use = await service.in_background(lambda: _asked(service, body))
        count = len(prompts) * (body.n or 1)
        if count > service.admission.places:
            message = (
                f"{count} answers were asked for, and this endpoint has {service.admission.places} places"
            )
            raise ApiError(400, message, "invalid_value", "n")
        places.take(count - 1)
        answers = [answer for prompt in prompts for answer in _answers(service, body, prompt, limit, use)]
        head = {
            "id": f"{shape.prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": service.bundle.name,
            "system_fingerprint": "fp_" + service.bundle.prompt_digest.removeprefix("sha256:")[:12],
        }
        for answer in answers:
            service.run(answer.generation)
        if body.stream:
            usage = bool(body.stream_options and body.stream_options.include_usage)
            events = _events(service, answers, head, shape, usage)
            return _Held(events, [answer.generation for answer in answers], stack.pop_all())
        texts = await _collect(http, answers)
        _count(service, answers)
        if texts is None:
            return Response(status_code=_HUNG_UP)
        choices = [
            _choice(n, text, answer, shape, _logprobs(service, shape, answer, answer.tokens))
            for n, (text, answer) in enumerate(zip(texts, answers, strict=True))
        ]
        return JSONResponse({"object": shape.whole, **head, "choices": choices, "usage": _usage(answers)})


def check_model(service: Service, name: str) -> None:
    """Refuse a request that means another model.

    Raises:
        ApiError: 404.
    """
    if name != service.bundle.name:
        message = f"there is no model '{name}' here; this endpoint serves '{service.bundle.name}'"
        raise ApiError(404, message, "model_not_found", "model")


class _Held(StreamingResponse):
    """A stream that holds its places while it is sent, and ends its answers when it ends."""

    def __init__(self, events: AsyncIterator[str], generations: list[Generation], places: ExitStack) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._generations, self._places = generations, places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._places:
            try:
                await super().__call__(scope, receive, send)
            finally:
                for generation in self._generations:
                    generation.cancel()


def _asked(service: Service, body: ChatRequest | CompletionRequest) -> tuple[list[list[int]], ToolUse]:
    """Prompt ids of a request, and how its answers may use tools. Takes seconds for long texts."""
    use = tool_use(service.renderer, body) if isinstance(body, ChatRequest) else ToolUse()
    if use.constraint is not None and (problem := grammar_problem(use.constraint)):
        param = "response_format" if use.constraint.kind == "json_schema" else "tools"
        raise ApiError(400, f"the JSON Schema cannot be followed: {problem}", "invalid_value", param)
    return _prompts(service, body, use), use


def _prompts(service: Service, body: ChatRequest | CompletionRequest, use: ToolUse) -> list[list[int]]:
    if isinstance(body, ChatRequest):
        variables = allowed_variables(service, body.chat_template_kwargs)
        messages = [message.plain() for message in body.messages]
        if service.renderer.ignores_calls(messages):
            name = service.renderer.template.name
            message = f"the messages have tool calls, and template '{name}' prints none of them"
            raise ApiError(400, message, "unsupported_parameter", "messages")
        return [service.chat_prompt(with_tools(messages, use.tools), variables)]
    size = service.renderer.tokenizer.vocabulary_size
    prompts = [service.renderer.encode_text(one) if isinstance(one, str) else one for one in body.prompts()]
    if any(not 0 <= i < size for prompt in prompts for i in prompt):
        raise ApiError(400, f"token ids are 0 to {size - 1}", "invalid_value", "prompt")
    return prompts


def _answers(
    service: Service, body: Common, prompt: list[int], limit: int | None, use: ToolUse
) -> list[Answer]:
    bundle = service.bundle
    answers = []
    for number in range(body.n or 1):
        sampling = body.sampling(bundle.defaults.temperature, bundle.defaults.top_p, number)
        if sampling.logit_bias and max(sampling.logit_bias) >= service.renderer.tokenizer.vocabulary_size:
            raise ApiError(400, "logit_bias names a token that there is not", "invalid_value", "logit_bias")
        generation = service.prepare(prompt, limit, sampling, body.wanted_logprobs(), use.constraint)
        answers.append(
            Answer(
                generation,
                service.renderer.detokenizer(calls=use.call_format is not None),
                body.stops(),
                service.metrics.first_token.observe,
                use.parts(),
            )
        )
    return answers


def _choice(index: int, text: str, answer: Answer, shape: Shape, logprobs: Any) -> dict[str, Any]:
    if (parts := answer.parts) is None:
        return shape.choice(index, {"content": text}, answer.finish, logprobs)
    said = joined([*parts.push(text), *parts.flush()])
    return shape.choice(index, said, parts.finish(answer.finish), logprobs)


async def _collect(http: Request, answers: list[Answer]) -> list[str] | None:
    """The whole texts, or ``None`` if the client hung up."""

    async def read(answer: Answer) -> str:
        return "".join([piece.text async for piece in answer.pieces()])

    async def hung_up() -> None:
        while (await http.receive())["type"] != "http.disconnect":
            pass

    work = asyncio.gather(*map(read, answers))
    gone = asyncio.ensure_future(hung_up())
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() else None
    finally:
        gone.cancel()
        work.cancel()
        for answer in answers:
            answer.generation.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await work


async def _events(
    service: Service, answers: list[Answer], head: dict[str, Any], shape: Shape, usage: bool
) -> AsyncIterator[str]:
    def event(choices: list[dict[str, Any]], **more: Any) -> str:
        return f"data: {json.dumps({'object': shape.piece, **head, 'choices': choices, **more})}\n\n"

    try:
        if shape.is_chat:
            for index in range(len(answers)):
                yield event([shape.delta(index, None, None, first=True)])
        async for index, piece in _merged(answers):
            answer = answers[index]
            parts = answer.parts
            if piece is None:
                for delta in parts.flush() if parts else ():
                    yield event([shape.part(index, delta)])
                finish = parts.finish(answer.finish) if parts else answer.finish
                yield event([shape.delta(index, None, finish)])
                continue
            logprobs = _logprobs(service, shape, answer, piece.tokens, piece.offset)
            if parts is None:
                yield event([shape.delta(index, piece.text, None, logprobs)])
            else:
                # Log-probabilities come with whatever the piece gives, even if that is nothing yet.
                deltas = parts.push(piece.text) or ([{}] if logprobs else [])
                for number, delta in enumerate(deltas):
                    yield event([shape.part(index, delta, None if number else logprobs)])
        if usage:
            yield event([], usage=_usage(answers))
    except Exception as error:  # noqa: BLE001
        # The status line is long gone: the error has to travel in the stream.
        yield f"data: {json.dumps(explain(error).body())}\n\n"
    finally:
        _count(service, answers)
    yield "data: [DONE]\n\n"


async def _merged(answers: list[Answer]) -> AsyncIterator[tuple[int, Piece | None]]:
    """Pieces of several answers as they come, each with its answer's number; ``None`` at an answer's end."""
    if len(answers) == 1:
        async for piece in answers[0].pieces():
            yield 0, piece
        yield 0, None
        return
    queue: asyncio.Queue[tuple[int, Piece | Exception | None]] = asyncio.Queue()

    async def read(index: int, answer: Answer) -> None:
        try:
            async for piece in answer.pieces():
                queue.put_nowait((index, piece))
            queue.put_nowait((index, None))
        except Exception as error:  # noqa: BLE001 - raised where the pieces are read
            queue.put_nowait((index, error))

    tasks = [asyncio.ensure_future(read(index, answer)) for index, answer in enumerate(answers)]
    try:
        left = len(answers)
        while left:
            index, item = await queue.get()
            if isinstance(item, Exception):
                raise item
            left -= item is None
            yield index, item
    finally:
        for task in tasks:
            task.cancel()


def _logprobs(service: Service, shape: Shape, answer: Answer, tokens: Any, offset: int = 0) -> Any:
    if answer.generation.request.logprobs is None:
        return None
    return shape.logprobs(tokens, lambda i: service.renderer.tokenizer.decode([i]), offset)


def _usage(answers: list[Answer]) -> dict[str, int]:
    made = sum(answer.completion_tokens for answer in answers)
    # The answers to one prompt read it once.
    read = sum({id(a.generation.request.prompt): a.prompt_tokens for a in answers}.values())
    return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}


def _count(service: Service, answers: list[Answer]) -> None:
    usage = _usage(answers)
    service.metrics.tokens.labels("prompt").inc(usage["prompt_tokens"])
    service.metrics.tokens.labels("completion").inc(usage["completion_tokens"])
