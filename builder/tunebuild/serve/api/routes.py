"""The routes below ``/v1``."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from tunebuild.serve.api.answer import Answer
from tunebuild.serve.api.errors import ApiError, explain
from tunebuild.serve.api.schemas import ChatRequest, Common, CompletionRequest
from tunebuild.serve.engines.base import Finish
from tunebuild.serve.service import Service


@dataclass(frozen=True, slots=True)
class _Shape:
    """How one kind of answer looks in JSON."""

    prefix: str
    whole: str
    piece: str
    is_chat: bool

    def choice(self, text: str, finish: Finish | None) -> dict[str, Any]:
        content: dict[str, Any] = (
            {"message": {"role": "assistant", "content": text, "refusal": None}}
            if self.is_chat
            else {"text": text}
        )
        return {"index": 0, **content, "logprobs": None, "finish_reason": finish}

    def delta(self, text: str | None, finish: Finish | None, *, first: bool = False) -> dict[str, Any]:
        if not self.is_chat:
            return {"index": 0, "text": text or "", "logprobs": None, "finish_reason": finish}
        delta: dict[str, Any] = {"role": "assistant", "content": ""} if first else {}
        if text is not None:
            delta["content"] = text
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


_CHAT = _Shape("chatcmpl", "chat.completion", "chat.completion.chunk", True)
_TEXT = _Shape("cmpl", "text_completion", "text_completion", False)


def make_router(service: Service) -> APIRouter:
    """Routes of a service."""
    router = APIRouter(prefix="/v1")
    card = {"id": service.bundle.name, "object": "model", "created": 0, "owned_by": "tunebuild"}

    @router.get("/models")
    async def models() -> dict[str, Any]:
        """The one model that is served."""
        return {"object": "list", "data": [card]}

    @router.get("/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        """The model by its name."""
        _check_model(service, name)
        return card

    @router.post("/chat/completions")
    async def chat(request: Request, body: ChatRequest) -> Response:
        """Answer a conversation, with the prompt that the model was trained on."""
        limit = body.max_completion_tokens or body.max_tokens
        return await _serve(service, request, body, limit, _CHAT)

    @router.post("/completions")
    async def completions(request: Request, body: CompletionRequest) -> Response:
        """Continue plain text, without the chat template."""
        return await _serve(service, request, body, body.max_tokens, _TEXT)

    return router


async def _serve(
    service: Service, request: Request, body: Common, limit: int | None, shape: _Shape
) -> Response:
    if reason := service.not_ready():
        raise ApiError(503, f"not ready: {reason}", "not_ready", retry_after=1)
    _check_model(service, body.model)
    with ExitStack() as place:
        place.enter_context(service.admission.enter())  # before any work: a full house costs nothing
        prompt = _prompt(service, body)
        defaults = service.bundle.defaults
        generation = service.prepare(prompt, limit, body.sampling(defaults.temperature, defaults.top_p))
        answer = Answer(
            generation,
            service.renderer.detokenizer(),
            body.stops(),
            service.metrics.first_token.observe,
        )
        head = {
            "id": f"{shape.prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": service.bundle.name,
            "system_fingerprint": "fp_" + service.bundle.prompt_digest.removeprefix("sha256:")[:12],
        }
        service.run(generation)
        if body.stream:
            usage = bool(body.stream_options and body.stream_options.include_usage)
            # The place is held until the stream ends, however it ends.
            events = _events(service, answer, head, shape, usage, place.pop_all())
            return StreamingResponse(
                events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
            )
        text = await _collect(request, answer)
        _count(service, answer)
        reply = {
            "object": shape.whole,
            **head,
            "choices": [shape.choice(text, answer.finish)],
            "usage": _usage(answer),
        }
        return JSONResponse(reply)


def _prompt(service: Service, body: Common) -> list[int]:
    if isinstance(body, ChatRequest):
        return service.chat_prompt([message.plain() for message in body.messages])
    assert isinstance(body, CompletionRequest)
    return service.renderer.encode_text(body.prompt)


async def _collect(request: Request, answer: Answer) -> str:
    """The whole text; a client that hangs up ends the answer."""

    async def hung_up() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        answer.generation.cancel()

    watcher = asyncio.create_task(hung_up())
    try:
        return "".join([piece async for piece in answer.pieces()])
    finally:
        watcher.cancel()


async def _events(
    service: Service, answer: Answer, head: dict[str, Any], shape: _Shape, usage: bool, place: ExitStack
) -> AsyncIterator[str]:
    def event(choices: list[dict[str, Any]], **more: Any) -> str:
        return f"data: {json.dumps({'object': shape.piece, **head, 'choices': choices, **more})}\n\n"

    with place:
        try:
            if shape.is_chat:
                yield event([shape.delta(None, None, first=True)])
            async for piece in answer.pieces():
                yield event([shape.delta(piece, None)])
            yield event([shape.delta(None, answer.finish)])
            if usage:
                yield event([], usage=_usage(answer))
        except Exception as error:  # noqa: BLE001
            # The status line is long gone: the error has to travel in the stream.
            yield f"data: {json.dumps(explain(error).body())}\n\n"
        finally:
            _count(service, answer)
        yield "data: [DONE]\n\n"


def _check_model(service: Service, name: str) -> None:
    if name != service.bundle.name:
        message = f"there is no model '{name}' here; this endpoint serves '{service.bundle.name}'"
        raise ApiError(404, message, "model_not_found", "model")


def _usage(answer: Answer) -> dict[str, int]:
    made, read = answer.completion_tokens, answer.prompt_tokens
    return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}


def _count(service: Service, answer: Answer) -> None:
    service.metrics.tokens.labels("prompt").inc(answer.prompt_tokens)
    service.metrics.tokens.labels("completion").inc(answer.completion_tokens)
