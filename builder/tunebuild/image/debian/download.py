"""Fetches a mirror's files, and keeps those that are known by their digest."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from tunebuild.errors import fail
from tunebuild.image.debian.settings import AptSettings
from tunebuild.store.atomic import write_atomically

_TIMEOUT = 30  # seconds without an answer
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Downloads:
    """Files of mirrors.

    Attributes:
        cache: directory of files by digest; made if absent. Safe for several builds at once.
        settings: how apt reaches mirrors.
    """

    cache: Path
    settings: AptSettings = field(default_factory=AptSettings)

    def fetch(self, url: str) -> bytes:
        """One file, anew.

        Raises:
            TunebuildError: ``mirror``: out of reach, or the file is not there.
        """
        opener = urllib.request.build_opener(*self._proxy_handlers())
        for attempt in range(_TRIES):
            try:
                with opener.open(url, timeout=_TIMEOUT) as response:
                    return bytes(response.read())
            except urllib.error.HTTPError as error:
                raise _unreachable(url, error) from None  # an answer, and asking again will not change it
            except ConnectionRefusedError as error:
                raise _unreachable(url, error) from None
            except (OSError, http.client.HTTPException, ValueError) as error:
                refused = isinstance(getattr(error, "reason", None), ConnectionRefusedError)
                if refused or attempt == _TRIES - 1:
                    raise _unreachable(url, error) from None
        raise AssertionError("unreachable: the last try returns or raises")

    def file(self, url: str, sha256: str, suffix: str) -> Path:
        """A file whose digest is known, from the cache if it is there and whole.

        Raises:
            TunebuildError: as :meth:`fetch`, or ``mirror-changed`` if the mirror has another file.
        """
        path = self.cache / f"{sha256}{suffix}"
        if path.is_file() and _sha256(path.read_bytes()) == sha256:
            return path
        data = self.fetch(url)
        if _sha256(data) != sha256:
            raise fail(
                "mirror-changed",
                f"{url} is not the file that the mirror's signed index names",
                "the mirror may be updating, or a proxy keeps an old copy: try again in a few minutes",
                path="image.base",
            )
        self.cache.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
        return path

    def _proxy_handlers(self) -> list[urllib.request.BaseHandler]:
        if not self.settings.proxies:
            return []
        return [urllib.request.ProxyHandler({**urllib.request.getproxies(), **dict(self.settings.proxies)})]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _unreachable(url: str, error: Exception) -> Exception:
    return fail(
        "mirror",
        f"cannot fetch {url}: {getattr(error, 'reason', None) or error}",
        "see whether 'apt-get update' works here: image.base: apt uses the mirrors of /etc/apt; "
        "nothing was changed, and packages fetched before are kept",
        path="image.base",
    )
