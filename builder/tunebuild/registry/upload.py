"""Sends one blob: whole if that works, in pieces where it does not, going on from where it stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from tunebuild.errors import fail
from tunebuild.registry.client import Repository
from tunebuild.registry.transport import AGAIN, Body, BytesBody, Dropped, Reply, unreachable
from tunebuild.store.digest import Digest

_FIRST_PIECE = 16 << 20
_SMALLEST_PIECE = 64 << 10
_GONE = (404, 410)
_TOO_LARGE = 413


@dataclass(slots=True)
class Pieces:
    """How much a registry takes in one request; what one blob learns spares the others.

    Attributes:
        size: bytes of a piece; 0 sends a blob as a whole.
    """

    size: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def shrink(self, refused: int) -> None:
        """A request of ``refused`` bytes was too large, or did not get through."""
        with self._lock:
            if self.size and self.size < refused:
                return  # another upload has already found this out
            wanted = min(_FIRST_PIECE, refused // 2)
            self.size = max(_SMALLEST_PIECE, 1 << (max(wanted, 1).bit_length() - 1))

    @property
    def smallest(self) -> bool:
        """Whether nothing smaller will be tried."""
        return 0 < self.size <= _SMALLEST_PIECE


@dataclass(frozen=True, slots=True)
class Source:
    """A blob to send; ``read`` gives its bytes from an offset, in blocks."""

    digest: Digest
    size: int
    label: str
    read: Callable[[int], Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class _Slice:
    """Part of a blob as a request's body; tells how many bytes have gone out."""

    source: Source
    offset: int
    size: int
    saw: Callable[[int], None]

    def blocks(self) -> Iterator[bytes]:
        left = self.size
        for block in self.source.read(self.offset):
            part = block[:left]
            yield part
            self.saw(len(part))
            left -= len(part)
            if not left:
                return


class Upload:
    """The sending of one blob.

    Args:
        repository: where to.
        source: what.
        pieces: shared by the uploads to a registry.
        saw: told the bytes as they go out; negative where some must be sent again.
    """

    def __init__(
        self, repository: Repository, source: Source, pieces: Pieces, saw: Callable[[int], None]
    ) -> None:
        self._repository, self._source, self._pieces, self._saw = repository, source, pieces, saw
        self._sent = 0
        self._failures = 0
        self._arrived = False

    def run(self, mounts: Sequence[str] = ()) -> bool:
        """Send the blob; whether its bytes went, rather than being mounted from a repository of ``mounts``.

        Raises:
            TunebuildError: as :meth:`Session.request`; ``registry-limit`` if a proxy refuses even small
                requests.
        """
        place = self._repository.start_upload(self._source.digest, mounts)
        offset = 0
        while place is not None:
            size, piece = self._source.size, self._pieces.size
            length = size - offset if not piece else min(piece, size - offset)
            last = offset + length == size and (not piece or offset == size or offset == 0)
            try:
                if last:
                    reply = self._put(place, offset, length)
                    if reply.status == 201 or (reply.status == 204 and not length):
                        reply.read()
                        return True
                else:
                    reply = self._patch(place, offset, length)
                    if reply.status in (202, 204):
                        reply.read()
                        place = self._repository.location(reply)
                        offset = self._confirmed(reply, offset + length)
                        self._failures = 0
                        continue
                place, offset = self._after(reply, place, length)
            except Dropped as error:
                assert place is not None
                place, offset = self._dropped(error, place, length)
        return self._arrived

    def _put(self, place: str, offset: int, length: int) -> Reply:
        separator = "&" if urlsplit(place).query else "?"
        url = f"{place}{separator}digest={quote(self._source.digest)}"
        return self._send("PUT", url, offset, length, {})

    def _patch(self, place: str, offset: int, length: int) -> Reply:
        return self._send(
            "PATCH", place, offset, length, {"Content-Range": f"{offset}-{offset + length - 1}"}
        )

    def _send(self, method: str, url: str, offset: int, length: int, headers: dict[str, str]) -> Reply:
        body: Body = _Slice(self._source, offset, length, self._count) if length else BytesBody(b"")
        return self._repository.session.request(
            method,
            url,
            self._repository.writing,
            expected=(201, 202, 204),
            headers={"Content-Type": "application/octet-stream", **headers},
            body=body,
            once=True,
        )

    def _after(self, reply: Reply, place: str, length: int) -> tuple[str | None, int]:
        """Where to go on after an answer that is not what was hoped for."""
        session = self._repository.session
        if reply.status == _TOO_LARGE:
            if self._pieces.smallest or length <= _SMALLEST_PIECE:
                reply.read()
                message = f"{session.host} refuses requests of {length / 1e3:,.0f} kB as too large"
                raise fail("registry-limit", message, "raise the limit of the proxy before the registry")
            reply.read()
            self._pieces.shrink(length)
            return self._resume(place)
        if reply.status not in (*AGAIN, *_GONE, 416):
            raise session.error(reply, f"the upload of {self._source.label}")
        self._failures += 1
        if self._failures >= session.retry.attempts:
            raise session.error(reply, f"the upload of {self._source.label}")
        reply.read()
        session.retry.wait(self._failures, reply.retry_after)
        return self._restart() if reply.status in _GONE else self._resume(place)

    def _dropped(self, error: Dropped, place: str, length: int) -> tuple[str | None, int]:
        self._failures += 1
        retry = self._repository.session.retry
        if self._failures >= retry.attempts:
            raise unreachable(error) from error
        retry.wait(self._failures)
        # A proxy that closes what is too large for it may never get its 413 through.
        if length > _SMALLEST_PIECE:
            self._pieces.shrink(length)
        return self._resume(place)

    def _resume(self, place: str) -> tuple[str | None, int]:
        """Ask how much the registry has."""
        repository = self._repository
        reply = repository.session.request(
            "GET", place, repository.writing, expected=(200, 201, 202, 204, 400, 404, 405, 410, 416)
        )
        reply.read()
        if reply.status not in (200, 202, 204):
            return self._restart()
        offset = self._confirmed(reply, 0)
        self._rewind(offset)
        return (repository.location(reply) if reply.headers.get("location") else place), offset

    def _restart(self) -> tuple[str | None, int]:
        if self._repository.has_blob(self._source.digest):
            self._arrived = True  # only the answer had not
            self._rewind(self._source.size)
            return None, 0
        self._rewind(0)
        return self._repository.start_upload(self._source.digest), 0

    def _confirmed(self, reply: Reply, otherwise: int) -> int:
        """Bytes that the registry has: ``Range`` is ``0-LAST``, and ``0-0`` both for none and for one."""
        _, _, last = reply.headers.get("range", "").removeprefix("bytes=").partition("-")
        if not last.isdigit():
            return otherwise
        known = int(last) + 1 if int(last) else 0
        return min(known, self._source.size)

    def _count(self, count: int) -> None:
        self._sent += count
        self._saw(count)

    def _rewind(self, offset: int) -> None:
        self._saw(offset - self._sent)
        self._sent = offset
