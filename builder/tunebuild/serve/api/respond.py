"""Answers one request: a place first, then the prompt, then as many answers as were asked for.

A place is held by a ``with`` block around everything that is done for a request, and by nothing else. A plain
answer is made inside that block; a streamed one takes the block along, and holds it while the response is
sent, however that ends.
"""

from __future__ import annotations

import time
import uuid
from contextlib import ExitStack
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.types import Receive

from tunebuild.prompt.messages import with_tools
from tunebuild.serve.api.answer import Answer
from tunebuild.serve.api.arrivals import Arrivals
from tunebuild.serve.api.errors import ApiError
from tunebuild.serve.api.reasoning import behind_reasoning, message_parts
from tunebuild.serve.api.schemas import ChatRequest, Common, CompletionRequest
from tunebuild.serve.api.shapes import Shape
from tunebuild.serve.api.stream import Events, Streamed, answer_logprobs, count_usage
from tunebuild.serve.api.tools import ToolUse, joined, tool_use
from tunebuild.serve.api.variables import allowed_variables
from tunebuild.serve.engines.grammar import grammar_problem
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
        generations = [answer.generation for answer in answers]
        tokenizer = service.renderer.tokenizer

        def spell(token_id: int) -> str:
            return tokenizer.decode([token_id])

        if body.stream:
            arrivals = Arrivals(generations, service.bell)
            tells = bool(body.stream_options and body.stream_options.include_usage)
            events = Events(answers, arrivals, head, shape, spell, tells)
            return Streamed(events.blocks(), arrivals, lambda: _count(service, answers), stack.pop_all())
        # A stop text has to be seen when it is made; else nobody looks before the end.
        watched = any(answer.watched for answer in answers)
        try:
            arrivals = Arrivals(generations, service.bell if watched else None)
            texts = await _collect(http.receive, answers, arrivals)
        finally:
            _count(service, answers)
        if texts is None:
            return Response(status_code=_HUNG_UP)
        choices = [
            _choice(n, text, answer, shape, answer_logprobs(shape, answer, answer.tokens, spell))
            for n, (text, answer) in enumerate(zip(texts, answers, strict=True))
        ]
        return JSONResponse(
            {"object": shape.whole, **head, "choices": choices, "usage": count_usage(answers)}
        )


def check_model(service: Service, name: str) -> None:
    """Refuse a request that means another model.

    Raises:
        ApiError: 404.
    """
    if name != service.bundle.name:
        message = f"there is no model '{name}' here; this endpoint serves '{service.bundle.name}'"
        raise ApiError(404, message, "model_not_found", "model")


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
    bundle, renderer, chat = service.bundle, service.renderer, isinstance(body, ChatRequest)
    decoder = renderer.answer_detokenizer if chat else renderer.detokenizer
    constraint = behind_reasoning(renderer, prompt, use.constraint)
    answers = []
    for number in range(body.n or 1):
        sampling = body.sampling(bundle.defaults.temperature, bundle.defaults.top_p, number)
        if sampling.logit_bias and max(sampling.logit_bias) >= service.renderer.tokenizer.vocabulary_size:
            raise ApiError(400, "logit_bias names a token that there is not", "invalid_value", "logit_bias")
        generation = service.prepare(
            prompt,
            limit,
            sampling,
            body.wanted_logprobs(),
            constraint,
            whole=not (body.stream or body.stops()),
        )
        answers.append(
            Answer(
                generation,
                decoder(calls=use.call_format is not None),
                body.stops(),
                service.metrics.first_token.observe,
                message_parts(renderer, prompt, use) if chat else None,
            )
        )
    return answers


def _choice(index: int, text: str, answer: Answer, shape: Shape, logprobs: Any) -> dict[str, Any]:
    if (parts := answer.parts) is None:
        return shape.choice(index, {"content": text}, answer.finish, logprobs)
    said = joined([*parts.push(text), *parts.flush()])
    return shape.choice(index, said, parts.finish(answer.finish), logprobs)


async def _collect(receive: Receive, answers: list[Answer], arrivals: Arrivals) -> list[str] | None:
    """The whole texts, or ``None`` if the client hung up."""
    texts = [""] * len(answers)
    async with arrivals.wanted(receive):
        while not all(answer.over for answer in answers):
            await arrivals.wait()
            if arrivals.abandoned:
                return None
            for index, answer in enumerate(answers):
                if not answer.over and (piece := answer.take()) is not None:
                    texts[index] += piece.text
                if answer.failure is not None:
                    raise answer.failure
    return texts


def _count(service: Service, answers: list[Answer]) -> None:
    usage = count_usage(answers)
    service.metrics.tokens.labels("prompt").inc(usage["prompt_tokens"])
    service.metrics.tokens.labels("completion").inc(usage["completion_tokens"])
