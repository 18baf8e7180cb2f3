"""Every error in OpenAI's shape, so that its clients raise what their users expect."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from tunebuild.prompt import PromptRefused
from tunebuild.serve.admission import Full
from tunebuild.serve.engines.base import EngineFailed
from tunebuild.serve.service import TooLong


class ApiError(Exception):
    """An error with OpenAI's fields.

    Attributes:
        status: HTTP status.
        code: for programs, e.g. ``model_not_found``.
        param: the request's field, if it is about one.
        retry_after: seconds for the ``Retry-After`` header.
    """

    def __init__(
        self, status: int, message: str, code: str, param: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """The JSON body."""
        kinds = {404: "not_found_error", 429: "rate_limit_error", 500: "server_error", 503: "server_error"}
        kind = kinds.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The whole answer."""
        headers = {"Retry-After": str(self.retry_after)} if self.retry_after is not None else None
        return JSONResponse(self.body(), self.status, headers)


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
        case EngineFailed():
            return ApiError(500, str(error), "engine_failed")
        case RequestValidationError():
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"] if part != "body")
            limits = first.get("ctx", {})
            # A list or mapping that must be empty is one that clients send although they use none.
            if first["type"] == "extra_forbidden" or limits.get("max_length") == 0:
                return ApiError(400, f"'{where}' is not supported", "unsupported_parameter", where)
            message = f"{where or 'body'}: {first['msg']}"
            if first["type"] == "literal_error":
                message = f"'{where}' is not supported, only {limits['expected'].replace('False', 'false')}"
            return ApiError(400, message, "invalid_value", where)
        case HTTPException():
            code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
            return ApiError(error.status_code, str(error.detail), code)
        case _:
            return ApiError(500, "internal error", "internal_error")


def install(app: FastAPI) -> None:
    """Answer errors of the app in this shape."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        return explain(error).response()

    kinds = (ApiError, Full, TooLong, PromptRefused, EngineFailed, RequestValidationError, HTTPException)
    for kind in (*kinds, Exception):
        app.add_exception_handler(kind, answer)
