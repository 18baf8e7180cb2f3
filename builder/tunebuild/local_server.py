"""Serves a build as a process of this machine: the same bundle and the same server as in the image."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tunebuild.image.bundle import BundleParts


@contextmanager
def local_server(
    parts: BundleParts, settings: Path, host: str, port: int, *, quiet: bool
) -> Iterator[subprocess.Popen[bytes]]:
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
        process = subprocess.Popen(
            argv,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if quiet else None,
            stderr=subprocess.DEVNULL if quiet else None,
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(parts.settings.limits.drain_seconds + 10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
