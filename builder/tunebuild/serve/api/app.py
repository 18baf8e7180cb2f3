"""Puts the HTTP application together."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from tunebuild import __version__
from tunebuild.serve import page
from tunebuild.serve.api import errors
from tunebuild.serve.api.access import RateLimit
from tunebuild.serve.api.limits import BodyLimit, Keys, Observe, RequireKey
from tunebuild.serve.api.routes import make_router
from tunebuild.serve.contract import API_KEYS, API_KEYS_FILE, LIVE, METRICS, READY
from tunebuild.serve.service import Service

_log = logging.getLogger("tunebuild.serve")


def make_app(service: Service) -> FastAPI:
    """The application of a service; starting it starts loading."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.stop()

    app = FastAPI(
        title=service.bundle.name,
        description=service.bundle.description,
        version=__version__,
        lifespan=lifespan,
        # The usual documentation pages load scripts from the internet, which an offline image has not.
        docs_url=None,
        redoc_url=None,
    )
    errors.install(app)
    app.openapi = lambda: _describe(app)  # type: ignore[method-assign]
    app.include_router(make_router(service))
    page.install(app)

    @app.get(LIVE)
    async def livez() -> dict[str, str]:
        """The process answers."""
        return {"status": "alive"}

    @app.get(READY, responses={503: {"description": "Not ready; the reason is in the body."}})
    async def readyz() -> JSONResponse:
        """Whether it may be asked; else the reason."""
        if reason := service.not_ready():
            return JSONResponse({"status": "not ready", "reason": reason}, 503)
        return JSONResponse(
            {"status": "ready", "model": service.bundle.name, "prompt": service.renderer.digest}
        )

    @app.get(METRICS, response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Prometheus metrics."""
        return Response(service.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    keys = Keys(_path(os.environ.get(API_KEYS_FILE)), os.environ.get(API_KEYS, ""))
    if not keys.required:
        _log.info("no key is required; %s or %s asks for one", API_KEYS_FILE, API_KEYS)
    # The last one is the outermost.
    app.add_middleware(BodyLimit, most=service.bundle.limits.body_bytes)
    if per_minute := service.bundle.limits.requests_per_minute:
        app.add_middleware(RateLimit, per_minute=per_minute)
    app.add_middleware(RequireKey, keys=keys, more=[*page.PAGES, *page.FILES])
    if origins := service.bundle.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Request-Id"],
            expose_headers=["X-Request-Id", "Retry-After"],
        )
    app.add_middleware(Observe, metrics=service.metrics)
    return app


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _describe(app: FastAPI) -> dict[str, Any]:
    """The published description: validation errors come as 400, not as FastAPI's 422."""
    if app.openapi_schema is None:
        found = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        for operations in found["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)
        app.openapi_schema = found
    return app.openapi_schema
