"""Every error in OpenAI's shape, so that its clients raise what their users expect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from tunebuild.prompt import PromptRefused
from tunebuild.serve.admission import Full
from tunebuild.serve.engines.generation import Drained, EngineFailed
from tunebuild.serve.service import TooLong


class ApiError(Exception):
    """An error with OpenAI's fields.

    Attributes:
        status: HTTP status.
        code: for programs, e.g. ``model_not_found``.
        param: the request's field, if it is about one.
        headers: of the answer; ``retry_after`` gives seconds for ``Retry-After``.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        param: str | None = None,
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)

    def body(self) -> dict[str, Any]:
        """The JSON body."""
        kinds = {
            401: "authentication_error",
            404: "not_found_error",
            429: "rate_limit_error",
            500: "server_error",
            503: "server_error",
        }
        kind = kinds.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The whole answer."""
        return JSONResponse(self.body(), self.status, self.headers or None)


def explain(error: Exception) -> ApiError:
    """Any error as one of OpenAI's."""
    match error:
        case ApiError():
            return error
        case Full():
            message = "too many requests are waiting"
            return ApiError(429, message, "rate_limit_exceeded", retry_after=error.retry_after)
        case TooLong():
            return ApiError(400, str(error), "context_length_exceeded", "messages")
        case PromptRefused():
            return ApiError(400, error.diagnostics[0].message, "prompt_refused", "messages")
        case Drained():
            return ApiError(503, str(error), "shutting_down", retry_after=1)
        case EngineFailed():
            return ApiError(500, str(error), "engine_failed")
        case RequestValidationError():
            first = error.errors()[0]
            # A union's members have names such as "constrained-str", which no client knows.
            parts = [
                part
                for part in map(str, first["loc"])
                if part != "body" and part.isidentifier() | part.isdigit()
            ]
            where = ".".join(parts)
            limits = first.get("ctx", {})
            # A list or mapping that must be empty is one that clients send although they use none.
            if first["type"] == "extra_forbidden" or limits.get("max_length") == 0:
                return ApiError(400, f"'{where}' is not supported", "unsupported_parameter", where)
            if first["type"] == "literal_error" and where.endswith("type") and "content" in where:
                return ApiError(400, "this model takes text only", "unsupported_content", where)
            message = f"{where or 'body'}: {first['msg']}"
            if first["type"] == "literal_error":
                message = f"'{where}' is not supported, only {limits['expected'].replace('False', 'false')}"
            return ApiError(400, message, "invalid_value", where)
        case HTTPException():
            code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
            return ApiError(error.status_code, str(error.detail), code, headers=error.headers)
        case _:
            return ApiError(500, "internal error", "internal_error")


#: What every route may answer besides 200, for the published description of the API.
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {
        "description": text,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["error"],
                    "properties": {
                        "error": {
                            "type": "object",
                            "required": ["message", "type", "param", "code"],
                            "properties": {
                                "message": {"type": "string"},
                                "type": {"type": "string"},
                                "param": {"type": ["string", "null"]},
                                "code": {"type": "string"},
                            },
                        }
                    },
                }
            }
        },
    }
    for status, text in {
        400: "The request cannot be honored; the message says why.",
        401: "A key is required.",
        404: "There is no such model or route.",
        405: "The route has no such method.",
        408: "The body did not arrive in time.",
        413: "The body is too large.",
        429: "Too many requests wait; Retry-After says when to come back.",
        500: "The model could not answer this request.",
        503: "Not ready yet, or shutting down.",
    }.items()
}


def install(app: FastAPI) -> None:
    """Answer errors of the app in this shape."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        return explain(error).response()

    kinds = (
        ApiError,
        Full,
        TooLong,
        PromptRefused,
        EngineFailed,
        Drained,
        RequestValidationError,
        HTTPException,
    )
    for kind in (*kinds, Exception):
        app.add_exception_handler(kind, answer)
