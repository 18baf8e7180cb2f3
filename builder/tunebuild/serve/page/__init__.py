"""The chat page and the API reference: static files that ask the API beside them, and nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import Response

#: What of it a browser asks for, and how it is called there. Keys are not asked for here: none is shown.
PAGES = {"/": "index.html", "/docs": "docs.html"}
FILES = {f"/page/{name}": name for name in ("page.css", "page.js", "docs.js")}
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
#: Nothing from elsewhere, no script or style within the page, no frame around it.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def install(app: FastAPI) -> None:
    """Serve the pages."""
    for path, name in {**PAGES, **FILES}.items():
        file = Path(__file__).with_name(name)
        response = _make(file.read_bytes(), f"{_KINDS[file.suffix]}; charset=utf-8")
        app.add_api_route(path, response, include_in_schema=False, response_class=Response)


def _make(content: bytes, kind: str) -> Callable[[], Awaitable[Response]]:
    async def answer() -> Response:
        return Response(content, media_type=kind, headers=_HEADERS)

    return answer
