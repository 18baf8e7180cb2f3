"""One repository of a registry: its blobs, manifests, referrers and tags."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from tunebuild.errors import fail
from tunebuild.registry.session import Scopes, Session
from tunebuild.registry.transport import BytesBody, Dropped, Reply, unreachable
from tunebuild.store.digest import Digest, digest_bytes

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    INDEX_TYPE,
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_BLOCK = 1 << 20
_MAX_MANIFEST = 4 << 20  # bytes; what registries accept, too


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or an index as the registry has it, byte for byte."""

    data: bytes
    media_type: str
    digest: Digest

    def json(self) -> Any:
        """Parsed."""
        return json.loads(self.data)


class Repository:
    """A repository. Methods raise ``TunebuildError`` as :meth:`Session.request` does."""

    def __init__(self, session: Session, name: str) -> None:
        self.session = session
        self.name = name

    @property
    def host(self) -> str:
        """The registry."""
        return self.session.host

    @property
    def reading(self) -> Scopes:
        """Scopes for reading."""
        return (f"repository:{self.name}:pull",)

    @property
    def writing(self) -> Scopes:
        """Scopes for writing."""
        return (f"repository:{self.name}:pull,push",)

    def has_blob(self, digest: Digest) -> bool:
        """Whether the blob is there, as far as somebody who may write can see."""
        reply = self.session.request("HEAD", self._path("blobs", digest), self.writing, expected=(200, 404))
        reply.read()
        return reply.status == 200

    def start_upload(self, digest: Digest, sources: Sequence[str] = ()) -> str | None:
        """Ask for a place to upload to; ``None`` if the registry could take the blob from one of ``sources``.

        Args:
            digest: the blob.
            sources: other repositories of the same registry that may have it.
        """
        for source in sources[:1]:
            path = f"{self._path('blobs', 'uploads/')}?mount={quote(digest)}&from={quote(source, safe='')}"
            scopes = (*self.writing, f"repository:{source}:pull")
            # Who may not read the source is answered 401 or 403 by some; then it is sent like any other.
            reply = self.session.request("POST", path, scopes, expected=(201, 202, 401, 403, 404))
            if reply.status == 201:
                reply.read()
                return None
            if reply.status == 202:
                return self._location(reply)
            reply.read()
        reply = self.session.request("POST", self._path("blobs", "uploads/"), self.writing, expected=(202,))
        return self._location(reply)

    def put_manifest(self, reference: str, data: bytes, media_type: str) -> Reply:
        """Store a manifest under a tag or its digest.

        Raises:
            TunebuildError: ``digest-changed`` if the registry stored something else.
        """
        reply = self.session.request(
            "PUT",
            self._path("manifests", reference),
            self.writing,
            expected=(201, 202),
            headers={"Content-Type": media_type},
            body=BytesBody(data),
        )
        reply.read()
        stored = reply.headers.get("docker-content-digest", "")
        if stored.startswith("sha256:") and stored != digest_bytes(data):
            message = f"{self.host} stored {stored} where {digest_bytes(data)} was sent"
            raise fail("digest-changed", message, "something between you and the registry changes manifests")
        return reply

    def manifest_digest(self, reference: str) -> Digest | None:
        """What a tag or digest is there; ``None`` if it is not."""
        found = self.get_manifest(reference)
        return found.digest if found else None

    def get_manifest(self, reference: str) -> Manifest | None:
        """A manifest by tag or digest; ``None`` if it is not there.

        Raises:
            TunebuildError: ``digest-changed`` if it is not what its digest says.
        """
        reply = self.session.request(
            "GET",
            self._path("manifests", reference),
            self.reading,
            expected=(200, 404),
            headers={"Accept": ", ".join(MANIFEST_TYPES)},
        )
        data = reply.read()
        if reply.status == 404:
            return None
        digest = digest_bytes(data)
        if len(data) > _MAX_MANIFEST or (reference.startswith("sha256:") and digest != reference):
            message = f"{self.host} sent {digest} for {self.name}@{reference}"
            raise fail("digest-changed", message, "do not use it: something changes what you read")
        media_type = reply.headers.get("content-type", "").partition(";")[0].strip()
        return Manifest(data, media_type, digest)

    def referrers(self, digest: Digest) -> list[dict[str, Any]]:
        """Descriptors of what refers to a manifest, by the referrers API or the tag that stands in for it."""
        path = self._path("referrers", digest)
        reply = self.session.request("GET", path, self.reading, expected=(200, 404, 405, 400))
        data = reply.read()
        if reply.status == 200 and "index" in reply.headers.get("content-type", ""):
            return list(json.loads(data).get("manifests") or [])
        fallback = self.get_manifest(referrers_tag(digest))
        return list(fallback.json().get("manifests") or []) if fallback else []

    def tags(self) -> list[str]:
        """All tags."""
        reply = self.session.request("GET", self._path("tags", "list"), self.reading, expected=(200, 404))
        data = reply.read()
        return list(json.loads(data).get("tags") or []) if reply.status == 200 else []

    def download(
        self, digest: Digest, size: int, target: Path, saw: Callable[[int], None] = lambda _: None
    ) -> None:
        """Write a blob to ``target``, going on where a connection was dropped.

        Args:
            digest, size: what is expected; nothing else is left at ``target``.
            target: a new file.
            saw: told the number of bytes as they come.
        """
        hasher, failures = hashlib.sha256(), 0
        with target.open("wb") as sink:
            while sink.tell() < size:
                offset = sink.tell()
                reply = self.session.request(
                    "GET",
                    self._path("blobs", digest),
                    self.reading,
                    expected=(200, 206),
                    headers={"Range": f"bytes={offset}-"} if offset else {},
                )
                try:
                    if offset and reply.status == 200:
                        sink.seek(0)
                        sink.truncate()
                        hasher = hashlib.sha256()
                    for block in reply.blocks(_BLOCK):
                        sink.write(block)
                        hasher.update(block)
                        saw(len(block))
                        if sink.tell() > size:
                            break
                except Dropped as error:
                    failures = failures + 1 if sink.tell() == offset else 1
                    if failures >= self.session.retry.attempts:
                        raise unreachable(error) from error
                    self.session.retry.wait(failures)
        if Digest("sha256:" + hasher.hexdigest()) != digest:
            target.unlink(missing_ok=True)
            message = f"{self.host} sent another blob than {digest}"
            raise fail("digest-changed", message, "do not use it: something changes what you read")

    def blob(self, digest: Digest) -> bytes:
        """A small blob, checked."""
        reply = self.session.request("GET", self._path("blobs", digest), self.reading, expected=(200,))
        data = reply.read()
        if digest_bytes(data) != digest:
            message = f"{self.host} sent another blob than {digest}"
            raise fail("digest-changed", message, "do not use it: something changes what you read")
        return data

    def _path(self, kind: str, rest: str) -> str:
        return f"/v2/{self.name}/{kind}/{rest}"

    def _location(self, reply: Reply) -> str:
        reply.read()
        return self.location(reply)

    def location(self, reply: Reply) -> str:
        """Where an upload goes on: ``Location`` as a URL that can be used."""
        url = urljoin(reply.url, reply.headers.get("location", ""))
        parts, root = urlsplit(url), urlsplit(self.session.root)
        if parts.netloc == root.netloc and parts.scheme != root.scheme:
            # A registry behind a proxy that ends TLS often believes that it is asked without.
            url = parts._replace(scheme=root.scheme).geturl()
        return url


def referrers_tag(digest: Digest) -> str:
    """The tag under which clients keep referrers in registries that know no referrers."""
    return digest.replace(":", "-")
