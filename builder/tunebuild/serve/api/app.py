"""Puts the HTTP application together."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from tunebuild import __version__
from tunebuild.serve.api import errors
from tunebuild.serve.api.routes import make_router
from tunebuild.serve.service import Service

_log = logging.getLogger("tunebuild.access")
_QUIET = frozenset(("/livez", "/readyz", "/metrics"))


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
    app.include_router(make_router(service))

    @app.get("/livez")
    async def livez() -> dict[str, str]:
        """The process answers."""
        return {"status": "alive"}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        """Whether it may be asked; else the reason."""
        if reason := service.not_ready():
            return JSONResponse({"status": "not ready", "reason": reason}, 503)
        return JSONResponse(
            {"status": "ready", "model": service.bundle.name, "prompt": service.renderer.digest}
        )

    @app.get("/metrics")
    async def metrics() -> Response:
        """Prometheus metrics."""
        return Response(service.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.middleware("http")
    async def observe(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        """Give each request an id, count it, and log it without a word of its content."""
        request_id = request.headers.get("x-request-id") or uuid.uuid4().hex
        started = time.monotonic()
        response = await call(request)
        seconds = time.monotonic() - started
        response.headers["x-request-id"] = request_id
        if request.url.path not in _QUIET:
            route = getattr(request.scope.get("route"), "path", "other")
            service.metrics.requests.labels(route, str(response.status_code)).inc()
            service.metrics.seconds.labels(route).observe(seconds)
            fields = {"id": request_id, "route": route, "status": response.status_code}
            _log.info(
                "%s %s", request.method, request.url.path, extra={"fields": {**fields, "seconds": seconds}}
            )
        return response

    return app
