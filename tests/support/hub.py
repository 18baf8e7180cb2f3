"""A stand-in for a model hub: the routes that huggingface_hub asks for, on the loopback interface."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

LARGE = (".safetensors", ".parquet")  # what the hub keeps apart, with its SHA-256


@dataclass
class Hub:
    """One repository, and how it misbehaves.

    Attributes:
        revisions: branch, tag or commit -> commit.
        files: commit -> file -> content.
        token: demanded of every request, if set.
        answer: a status for every request instead of an answer, e.g. 429.
        cut_after: bytes after which the next download of a large file breaks off, once.
        damaged: large files arrive with another first byte, though they claim their digest.
        asked: methods, paths and Range headers, in order.
    """

    repository: str = "org/tiny"
    revisions: dict[str, str] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    token: str = ""
    answer: int = 0
    cut_after: int = 0
    damaged: bool = False
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    url: str = ""
    gone: bool = False

    def commit(self, files: dict[str, bytes], *names: str) -> str:
        """Add a commit; branches and tags in ``names`` then stand for it."""
        digest = hashlib.sha1(b"".join(n.encode() + c for n, c in sorted(files.items()))).hexdigest()
        self.files[digest] = files
        for name in (digest, *names):
            self.revisions[name] = digest
        return digest

    @contextmanager
    def running(self) -> Iterator[Hub]:
        """Answer requests until the end of the block."""
        hub = self

        class Handler(_Handler):
            serves = hub

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.gone = True  # connections that are kept alive outlive the server
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    serves: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        hub = self.serves
        if hub.gone:
            self.close_connection = True
            return None
        path = urlsplit(self.path).path
        hub.asked.append((self.command, path, self.headers.get("Range", "")))
        if hub.answer:
            return self._error(hub.answer, "")
        if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self._error(401, "GatedRepo")
        parts = path.strip("/").split("/")
        is_api = parts[0] == "api"
        if is_api:
            parts = parts[2:]
        elif parts[0] == "datasets":
            parts = parts[1:]
        if "/".join(parts[:2]) != hub.repository:
            return self._error(404, "RepoNotFound")
        revision = parts[3] if len(parts) > 3 else "main"
        if revision not in hub.revisions:
            return self._error(404, "RevisionNotFound")
        commit = hub.revisions[revision]
        if is_api:
            return self._send(json.dumps(self._info(parts[2], commit)).encode(), {}, body)
        name = "/".join(parts[4:])
        if name not in hub.files[commit]:
            return self._error(404, "EntryNotFound")
        return self._file(name, hub.files[commit][name], commit, body)

    def _info(self, route: str, commit: str) -> object:
        entries = []
        for name, content in self.serves.files[commit].items():
            entry = {"rfilename": name, "path": name, "type": "file", "size": len(content)}
            entry |= {"blobId": hashlib.sha1(content).hexdigest(), "oid": hashlib.sha1(content).hexdigest()}
            if name.endswith(LARGE):
                digest = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"sha256": digest, "oid": digest, "size": len(content), "pointerSize": 130}
            entries.append(entry)
        if route == "tree":
            return entries
        return {
            "id": self.serves.repository,
            "sha": commit,
            "siblings": entries,
            "tags": [],
            "private": False,
        }

    def _file(self, name: str, content: bytes, commit: str, body: bool) -> None:
        hub = self.serves
        large = name.endswith(LARGE)
        digest = (hashlib.sha256 if large else hashlib.sha1)(content).hexdigest()
        headers = {"X-Repo-Commit": commit, "ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        if large and body and hub.damaged:
            content = bytes([content[0] ^ 1]) + content[1:]
        start = 0
        if wanted := self.headers.get("Range", ""):
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        rest = content[start:]
        if large and body and hub.cut_after:
            cut, hub.cut_after = hub.cut_after, 0
            self._send(rest, headers, True, cut=cut, status=206 if start else 200)
            self.close_connection = True
            return
        self._send(rest, headers, body, status=206 if wanted else 200)

    def _send(
        self,
        content: bytes,
        headers: dict[str, str],
        body: bool,
        *,
        cut: int | None = None,
        status: int = 200,
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content[:cut])

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()
