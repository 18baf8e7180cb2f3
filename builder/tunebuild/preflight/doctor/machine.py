"""How checks ask the machine: each question bounded in time, and replaceable by a test."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_ANSWER = 5.0  # seconds until a server counts as not reachable
_PROGRAM = 60.0  # seconds; importing torch from a slow disk takes half of that


@dataclass(frozen=True, slots=True)
class Ran:
    """A program that has ended; ``code`` is ``None`` if it could not be started, or did not end in time."""

    code: int | None
    out: str
    err: str

    @property
    def said(self) -> str:
        """Its last line, of errors if there are any."""
        lines = (self.err.strip() or self.out.strip()).splitlines()
        return lines[-1].strip() if lines else "it says nothing"


class Machine:
    """This machine.

    Args:
        store: where stages are kept.
    """

    def __init__(self, store: Path) -> None:
        self.store = store

    def run(self, *argv: str, timeout: float = _PROGRAM) -> Ran:
        """Run a program."""
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            return Ran(None, "", f"did not end within {timeout:.0f} seconds")
        except OSError as error:
            return Ran(None, "", error.strerror or str(error))
        return Ran(done.returncode, done.stdout, done.stderr)

    def python(self, program: str) -> Ran:
        """Run a program in a Python of its own, which may crash."""
        return self.run(sys.executable, "-c", program)

    def has(self, program: str) -> bool:
        """Whether a program is installed."""
        return shutil.which(program) is not None

    def version(self, distribution: str) -> str | None:
        """Version of an installed package."""
        try:
            return version(distribution)
        except PackageNotFoundError:
            return None

    def free(self, place: Path) -> int:
        """Bytes that are free where a directory is, or would be."""
        return shutil.disk_usage(_existing(place)).free

    def writable(self, place: Path) -> str:
        """Why nothing can be written to a directory, or to where it would be; empty if something can."""
        probe = _existing(place) / f".tunebuild-{id(self)}"
        try:
            probe.touch()
            probe.unlink()
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def get(
        self,
        url: str,
        proxies: Mapping[str, str] | None = None,
        token: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> int | str:
        """The status that a server answers with, or why it does not answer.

        Args:
            url: what is asked for; its body is not read.
            proxies: by scheme, if not the environment's.
            token: a bearer token.
            tls: what its certificate is checked with, if not the system's authorities.
        """
        handlers = (
            urllib.request.ProxyHandler(dict(proxies) if proxies else None),
            urllib.request.HTTPSHandler(context=tls),
        )
        try:
            request = urllib.request.Request(url, headers={"User-Agent": "tunebuild"})  # noqa: S310
            if token:
                request.add_unredirected_header("Authorization", f"Bearer {token}")
            with urllib.request.build_opener(*handlers).open(request, timeout=_ANSWER) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except urllib.error.URLError as error:
            return _reason(error.reason)
        except (OSError, ValueError) as error:  # while the answer is read; and what is no URL
            return _reason(error)


def few(names: Sequence[str]) -> str:
    """Names in a sentence, the first few of many."""
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def _existing(place: Path) -> Path:
    place = place.absolute()
    return next(path for path in (place, *place.parents) if path.is_dir())


def _reason(error: object) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {_ANSWER:.0f} seconds"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error)
