"""Streamed answers as server-sent events.

This is run for every token of every stream, so it is kept from work: all that is equal in a stream's events
is written once, and what has come of a request's answers by then is sent in one block.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack
from json.encoder import encode_basestring_ascii
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from tunebuild.serve.api.answer import Answer, Piece
from tunebuild.serve.api.arrivals import Arrivals
from tunebuild.serve.api.errors import explain
from tunebuild.serve.api.shapes import Shape, Spell
from tunebuild.serve.engines.request import Token

_MARK = "\ue000"  # stands for a piece's text in the event that the others are made from


class Events:
    """Events of one request.

    Args:
        answers: running.
        arrivals: of those answers.
        head: what all events begin with.
        shape: of the answers.
        spell: gives a token's text.
        usage: whether the last event tells how many tokens there were.
    """

    def __init__(
        self,
        answers: Sequence[Answer],
        arrivals: Arrivals,
        head: dict[str, Any],
        shape: Shape,
        spell: Spell,
        usage: bool,
    ) -> None:
        self._answers, self._arrivals, self._shape, self._spell = answers, arrivals, shape, spell
        self._head = {"object": shape.piece, **head}
        self._wants_usage = usage
        self._around = [self._parts(index) for index in range(len(answers))]

    async def blocks(self) -> AsyncIterator[bytes]:
        """Events as they come, several in a block where several have come. Ends early if nobody reads."""
        try:
            if self._shape.is_chat:
                first = [self._event([self._shape.delta(n, None, None, first=True)]) for n in self._numbers()]
                yield b"".join(first)
            left = list(self._numbers())
            while left:
                await self._arrivals.wait()
                if self._arrivals.abandoned:
                    return
                if block := b"".join(self._new(left)):
                    yield block
                for index in left:
                    if (failure := self._answers[index].failure) is not None:
                        raise failure
                left = [index for index in left if not self._answers[index].over]
            if self._wants_usage:
                yield self._event([], usage=count_usage(self._answers))
        except Exception as error:  # noqa: BLE001
            # The status line is long gone: the error has to travel in the stream.
            yield f"data: {json.dumps(explain(error).body())}\n\n".encode()
        yield b"data: [DONE]\n\n"

    def _new(self, left: list[int]) -> Iterator[bytes]:
        for index in left:
            answer = self._answers[index]
            if (piece := answer.take()) is not None:
                yield from self._piece(index, answer, piece)
            if answer.finish is not None:
                yield from self._end(index, answer)

    def _numbers(self) -> range:
        return range(len(self._answers))

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        return f"data: {json.dumps({**self._head, 'choices': choices, **more})}\n\n".encode()

    def _piece(self, index: int, answer: Answer, piece: Piece) -> Iterator[bytes]:
        logprobs = answer_logprobs(self._shape, answer, piece.tokens, self._spell, piece.offset)
        if answer.parts is not None:
            # Log-probabilities come with whatever the piece gives, even if that is nothing yet.
            deltas = answer.parts.push(piece.text) or ([{}] if logprobs else [])
            for number, delta in enumerate(deltas):
                yield self._event([self._shape.part(index, delta, None if number else logprobs)])
        elif logprobs is not None:
            yield self._event([self._shape.delta(index, piece.text, None, logprobs)])
        else:
            before, behind = self._around[index]
            yield f"{before}{encode_basestring_ascii(piece.text)}{behind}".encode()

    def _end(self, index: int, answer: Answer) -> Iterator[bytes]:
        finish: str | None = answer.finish
        if answer.parts is not None:
            for delta in answer.parts.flush():
                yield self._event([self._shape.part(index, delta)])
            finish = answer.parts.finish(answer.finish)
        yield self._event([self._shape.delta(index, None, finish)])

    def _parts(self, index: int) -> tuple[str, str]:
        """What comes before and behind the text in an answer's events."""
        event = self._event([self._shape.delta(index, _MARK, None)]).decode()
        before, _, behind = event.rpartition(json.dumps(_MARK))
        return before, behind


class Streamed(StreamingResponse):
    """A stream that holds its places while it is sent, and ends its answers when it ends.

    Args:
        blocks: of events.
        arrivals: of the answers.
        count: called at the end.
        places: what is held.
    """

    def __init__(
        self, blocks: AsyncIterator[bytes], arrivals: Arrivals, count: Callable[[], None], places: ExitStack
    ) -> None:
        super().__init__(blocks, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._blocks, self._arrivals, self._count, self._places = blocks, arrivals, count, places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        with self._places:
            try:
                async with self._arrivals.wanted(receive):
                    headers = self.raw_headers
                    await send({"type": "http.response.start", "status": 200, "headers": headers})
                    async for block in self._blocks:
                        await send({"type": "http.response.body", "body": block, "more_body": True})
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
            finally:
                self._count()


def count_usage(answers: Sequence[Answer]) -> dict[str, int]:
    """Tokens read and made, in OpenAI's words."""
    made = sum(answer.completion_tokens for answer in answers)
    # The answers to one prompt read it once.
    read = sum({id(a.generation.request.prompt): a.prompt_tokens for a in answers}.values())
    return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}


def answer_logprobs(
    shape: Shape, answer: Answer, tokens: Sequence[Token], spell: Spell, offset: int = 0
) -> dict[str, Any] | None:
    """Log-probabilities of some of an answer's tokens, if the request asks for them."""
    if answer.generation.request.logprobs is None:
        return None
    return shape.logprobs(tokens, spell, offset)
