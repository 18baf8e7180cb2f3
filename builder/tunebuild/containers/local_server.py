"""Serves a build as a process of this machine: the same bundle and the same server as in the image."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tunebuild.image.bundle import BundleParts

_LOG_LINES = 20


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A started server; ``log`` is where its log is if that is not shown."""

    process: subprocess.Popen[bytes]
    log: Path | None

    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    def last_words(self) -> str:
        """The end of its log, or where that is if it was shown."""
        if self.log is None:
            return "what it printed is above"
        if not (lines := self.log.read_text("utf-8", "replace").splitlines()[-_LOG_LINES:]):
            return "it printed nothing"
        return "\n".join(("the end of its log, which 'tunebuild run' shows whole:", *lines))


@contextmanager
def local_server(
    parts: BundleParts, settings: Path, host: str, port: int, *, quiet: bool
) -> Iterator[LocalServer]:
    """Start the server on a bundle; it gets SIGTERM, and its time to drain, at the end.

    Args:
        parts: what the bundle is made of.
        settings: the image stage's output.
        host, port: where to listen.
        quiet: keep the server's log away from the terminal.
    """
    with TemporaryDirectory(prefix="tunebuild-") as directory:
        parts.lay_out(Path(directory), settings)
        argv = [sys.executable, "-m", "tunebuild.serve", directory, "--host", host, "--port", str(port)]
        log = Path(directory, "server.log") if quiet else None
        with log.open("wb") if log else nullcontext() as stream:
            process = subprocess.Popen(
                argv,
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )
        try:
            yield LocalServer(process, log)
        finally:
            process.terminate()
            try:
                process.wait(parts.settings.limits.drain_seconds + 10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
