"""Starts a build's endpoint, in a container where an engine answers, else as a process."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import click

from tunebuild.building import Built
from tunebuild.errors import TunebuildError
from tunebuild.verify.endpoint import wait_until_ready

ENGINES = ("auto", "docker", "podman", "none")
engine_option = click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default="auto",
    show_default=True,
    help="What runs the endpoint; 'none' is a plain process, 'auto' the first of the others that answers.",
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running endpoint: its URL, what runs it, and how long it took to be ready (seconds)."""

    url: str
    runner: str
    ready_after: float


@contextmanager
def endpoint(built: Built, engine: str, host: str, port: int, *, quiet: bool) -> Iterator[Endpoint]:
    """A ready endpoint; stopped at the end."""
    port = port or _free_port()
    url = f"http://{host}:{port}"
    if engine == "none" or (engine == "auto" and not _engine_answers()):
        from tunebuild.local_server import local_server

        with local_server(built.parts, built.settings.root, host, port, quiet=quiet) as process:
            seconds = wait_until_ready(url, lambda: process.poll() is None)
            yield Endpoint(url, "local process", seconds)
        return

    from tunebuild.image.engines import RunOptions, find_engine, wait_ready

    found = find_engine("" if engine == "auto" else engine)
    report = found.load(built.image)
    click.echo(
        f"  load    {report.sent / 1e6:,.1f} of {report.total / 1e6:,.1f} MB sent to {found.name}", err=True
    )
    options = RunOptions(host=host, port=port)
    started = time.monotonic()
    container = found.run(built.image.reference, options)
    try:
        wait_ready(container, options)
        yield Endpoint(url, f"{found.name} container {container.id[:12]}", time.monotonic() - started)
        if not quiet:
            for line in container.logs(follow=True):
                print(line, file=sys.stderr)
    finally:
        container.stop()


def _engine_answers() -> bool:
    from tunebuild.image.engines import find_engine

    try:
        find_engine()
    except TunebuildError as error:
        click.echo(f"  serving as a local process: {error.diagnostics[0].message}", err=True)
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
