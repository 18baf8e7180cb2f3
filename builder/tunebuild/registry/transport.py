"""One HTTP request at a time: pools, TLS, proxies, waiting and trying again. Knows nothing of registries."""

from __future__ import annotations

import email.utils
import random
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, MaxRetryError, SSLError

from tunebuild import __version__
from tunebuild.errors import TunebuildError, fail

AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 5
_LONGEST_WAIT = 120.0  # seconds that a registry's Retry-After may ask for


class Body(Protocol):
    """What is sent. ``blocks`` starts anew at each call, since a request may have to be repeated."""

    @property
    def size(self) -> int:
        """Length in bytes."""

    def blocks(self) -> Iterable[bytes]:
        """The content."""


@dataclass(frozen=True, slots=True)
class BytesBody:
    """Bytes in memory."""

    data: bytes

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.data)

    def blocks(self) -> Iterable[bytes]:
        """The content."""
        return (self.data,)


@dataclass(frozen=True, slots=True)
class Retry:
    """How often to try (``attempts`` in all), and for how many seconds to wait: ``first``, then double."""

    attempts: int = 6
    first: float = 0.5
    longest: float = 30.0
    sleep: Callable[[float], None] = time.sleep

    def wait(self, failures: int, asked: float | None = None) -> None:
        """Wait after the ``failures``-th failure in a row; ``asked`` are the seconds the server named."""
        if asked is not None:
            self.sleep(min(asked, _LONGEST_WAIT))
            return
        delay = min(self.longest, self.first * 2 ** (failures - 1))
        # Clients that failed together should not come back together.
        self.sleep(delay * random.uniform(0.75, 1.25))  # noqa: S311


@dataclass(slots=True)
class Reply:
    """An answer. ``headers`` by lower-case name; ``url`` is where it came from."""

    status: int
    headers: Mapping[str, str]
    url: str
    _response: urllib3.BaseHTTPResponse = field(repr=False)

    def read(self) -> bytes:
        """The whole body; the connection goes back to its pool."""
        try:
            return self._response.read()
        except HTTPError as error:
            raise Dropped(self.url, error) from error
        finally:
            self._response.release_conn()

    def blocks(self, size: int) -> Iterator[bytes]:
        """The body in blocks."""
        try:
            yield from self._response.stream(size, decode_content=False)
        except HTTPError as error:
            raise Dropped(self.url, error) from error
        finally:
            self._response.release_conn()

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait, if the server names them."""
        text = self.headers.get("retry-after", "").strip()
        if text.isdigit():
            return float(text)
        when = email.utils.parsedate_to_datetime(text) if text.count(":") == 2 else None
        return max(0.0, when.timestamp() - time.time()) if when else None


class Dropped(Exception):
    """The connection failed; whether the server did what was asked is unknown."""

    def __init__(self, url: str, error: Exception) -> None:
        super().__init__(f"{urlsplit(url).netloc}: {_reason(error)}")


class Transport:
    """Sends requests; safe for several threads.

    Args:
        context: for TLS.
        connections: kept open to each host.
    """

    def __init__(self, context: ssl.SSLContext, connections: int = 8) -> None:
        self._context = context
        self._connections = connections
        self._pools: dict[str, urllib3.PoolManager] = {}

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body | None = None,
        *,
        follow: bool = True,
    ) -> Reply:
        """Send once, following redirects of requests without a body.

        ``Authorization`` is not sent to another host than the first one.

        Raises:
            Dropped: no answer.
            TunebuildError: ``registry-tls`` if the host cannot prove its name.
        """
        headers = {"User-Agent": f"tunebuild/{__version__}", **headers}
        for _ in range(_MAX_REDIRECTS):
            reply = self._send(method, url, headers, body)
            target = reply.headers.get("location")
            if reply.status not in _REDIRECTS or not target or not follow or body is not None:
                return reply
            reply.read()
            target = urljoin(url, target)
            if urlsplit(target).netloc != urlsplit(url).netloc:
                headers = {name: value for name, value in headers.items() if name != "Authorization"}
            if urlsplit(url).scheme == "https" and urlsplit(target).scheme != "https":
                raise fail(
                    "registry-error", f"{urlsplit(url).netloc} redirects to plain HTTP", "see its operator"
                )
            url = target
        raise fail("registry-error", f"{urlsplit(url).netloc} redirects in circles", "see its operator")

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: Body | None) -> Reply:
        sent = dict(headers)
        if body is not None:
            sent["Content-Length"] = str(body.size)
        elif method in ("POST", "PUT", "PATCH"):
            sent["Content-Length"] = "0"
        try:
            response = self._pool(url).request(
                method,
                url,
                body=None if body is None else body.blocks(),
                headers=sent,
                preload_content=False,
                redirect=False,
                retries=False,
                timeout=urllib3.Timeout(connect=20, read=300),
            )
        except (HTTPError, OSError) as error:
            if tls := _tls_error(error):
                hint = "give its authority's certificate with --ca-file, or put it into /etc/docker/certs.d"
                message = f"{urlsplit(url).netloc} cannot prove its name: {tls}"
                raise fail("registry-tls", message, hint) from error
            raise Dropped(url, error) from error
        return Reply(response.status, {k.lower(): v for k, v in response.headers.items()}, url, response)

    def _pool(self, url: str) -> urllib3.PoolManager:
        parts = urlsplit(url)
        proxy = ""
        if not is_loopback(parts.netloc) and not urllib.request.proxy_bypass(parts.hostname or ""):
            proxy = urllib.request.getproxies().get(parts.scheme, "")
        if proxy not in self._pools:
            make = urllib3.PoolManager if not proxy else lambda **given: urllib3.ProxyManager(proxy, **given)
            self._pools[proxy] = make(maxsize=self._connections, ssl_context=self._context)
        return self._pools[proxy]


def is_loopback(netloc: str) -> bool:
    """Whether a host (with or without port) is this machine."""
    name = urlsplit(f"//{netloc}").hostname or ""
    return name in ("localhost", "::1") or name.startswith("127.")


def unreachable(error: Dropped) -> TunebuildError:
    """What a user is told when trying again did not help."""
    hint = "check the name and the network; a registry without TLS on this machine needs --plain-http"
    return fail("registry-unreachable", f"no answer from {error}", hint)


def _tls_error(error: Exception) -> str:
    cause: BaseException | None = error.reason if isinstance(error, MaxRetryError) else error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message
        cause = cause.__cause__ or (cause.args[0] if isinstance(cause, SSLError) and cause.args else None)
        if not isinstance(cause, BaseException):
            return ""
    return ""


def _reason(error: Exception) -> str:
    reason: object = getattr(error, "reason", None) or error
    text = str(reason.args[-1] if isinstance(reason, Exception) and reason.args else reason)
    return text.rpartition(": ")[2] if "object at 0x" in text else text
