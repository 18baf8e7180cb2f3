"""The routes below ``/v1``, and those that show what the server does with a request."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from tunebuild.prompt.messages import with_tools
from tunebuild.prompt.tools import plain_tools
from tunebuild.serve.api.errors import RESPONSES, ApiError
from tunebuild.serve.api.respond import check_model, respond
from tunebuild.serve.api.schemas import ChatRequest, CompletionRequest, RenderRequest, TokenizeRequest
from tunebuild.serve.api.shapes import CHAT, TEXT
from tunebuild.serve.api.variables import allowed_variables
from tunebuild.serve.service import Service


def make_router(service: Service) -> APIRouter:
    """Routes of a service."""
    router = APIRouter(responses=RESPONSES)
    card = {"id": service.bundle.name, "object": "model", "created": 0, "owned_by": "tunebuild"}

    @router.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model that is served."""
        return {"object": "list", "data": [card]}

    @router.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        """The model by its name."""
        check_model(service, name)
        return card

    @router.post("/v1/chat/completions")
    async def chat(request: Request, body: ChatRequest) -> Response:
        """Answer a conversation, with the prompt that the model was trained on."""
        limit = body.max_completion_tokens or body.max_tokens
        return await respond(service, request, body, limit, CHAT)

    @router.post("/v1/completions")
    async def completions(request: Request, body: CompletionRequest) -> Response:
        """Continue plain text, without the chat template."""
        return await respond(service, request, body, body.max_tokens, TEXT)

    @router.post("/v1/embeddings")
    async def embeddings() -> Response:
        """Refused: the model writes text."""
        raise ApiError(400, "this model writes text; it gives no embeddings", "unsupported_operation")

    @router.post("/tokenize")
    async def tokenize(body: TokenizeRequest) -> dict[str, Any]:
        """Token ids of plain text."""
        _check_ready(service)
        ids = await service.in_background(lambda: service.renderer.encode_text(body.prompt))
        return {"tokens": ids, "count": len(ids), "max_model_len": service.bundle.limits.context}

    @router.post("/render")
    async def render(body: RenderRequest) -> dict[str, Any]:
        """The exact prompt of a conversation: token ids, each token's own spelling, and the text."""
        _check_ready(service)
        if body.tools and (reason := service.renderer.no_calls):
            raise ApiError(400, f"this model takes no tools: {reason}", "unsupported_parameter", "tools")
        tools = plain_tools([tool.raw() for tool in body.tools or ()])
        messages = with_tools([message.plain() for message in body.messages], tools)
        variables = allowed_variables(service, body.chat_template_kwargs)
        ids = await service.in_background(lambda: service.chat_prompt(messages, variables))
        tokenizer = service.renderer.tokenizer
        spelled = [tokenizer.token_text(i) for i in ids]
        return {"tokens": ids, "count": len(ids), "spelled": spelled, "text": tokenizer.spell(ids)}

    return router


def _check_ready(service: Service) -> None:
    if reason := service.not_ready():
        raise ApiError(503, f"not ready: {reason}", "not_ready", retry_after=1)
