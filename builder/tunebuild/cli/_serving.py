"""Starts a build's endpoint, in a container where a container runtime answers, else as a process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from tunebuild.cli._echo import echo
from tunebuild.cli._options import runtime_option
from tunebuild.client.readiness import wait_until_ready
from tunebuild.errors import TunebuildError, fail

if TYPE_CHECKING:
    from tunebuild.build.run import Built
    from tunebuild.containers.runtime import Container, RunOptions
    from tunebuild.image.oci.manifest import Image
    from tunebuild.image.oci.reference import ImageReference

RUNTIMES = ("auto", "docker", "podman", "none")
endpoint_runtime_option = runtime_option(
    RUNTIMES,
    "What runs the endpoint; 'none' is a plain process, 'auto' the first of the others that answers.",
)
ready_option = click.option(
    "--ready-within",
    type=click.FloatRange(min=0),
    default=120,
    show_default=True,
    metavar="SECONDS",
    help="How long the endpoint may take to load the model.",
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running endpoint.

    Attributes:
        url: its root.
        runner: what runs it.
        ready_after: seconds until it was ready.
        wait: shows its log until it ends by itself; its exit status, 128 and more for a signal.
    """

    url: str
    runner: str
    ready_after: float
    wait: Callable[[], int]


@contextmanager
def endpoint(
    built: Built,
    runtime: str,
    host: str,
    port: int,
    ready_within: float,
    *,
    quiet: bool,
    tagged: bool = True,
) -> Iterator[Endpoint]:
    """A ready endpoint; stopped at the end.

    Args:
        built: what is served.
        runtime: one of :data:`RUNTIMES`.
        host, port: where it listens; 0 takes a free port.
        ready_within: seconds that it may take to be ready.
        quiet: keep a local process's log away from the terminal.
        tagged: whether the runtime keeps the image, under the spec's name; else it is left as it was.

    Raises:
        TunebuildError: ``port-taken``; or the server did not become ready.
    """
    if port:
        _refuse_taken(host, port)
    port = port or _free_port()
    # An orchestrator's SIGTERM ends the endpoint as Ctrl-C does, with its drain.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    url = f"http://{host}:{port}"
    from tunebuild.containers.runtime import RunOptions, wait_ready

    options = RunOptions(host=host, port=port, gpus=built.parts.settings.device == "cuda")
    started = time.monotonic()
    with ExitStack() as running:
        container, runner = None, "local process"
        if runtime != "none":
            try:
                container, runner = running.enter_context(_container(built.image, runtime, options, tagged))
            except TunebuildError as error:
                # What a runtime cannot start, a process may; what starts and then fails is an error.
                problem = error.diagnostics[0]
                if runtime != "auto" or problem.code not in ("no-runtime", "run-failed"):
                    raise
                echo(f"  serving as a local process: {problem.message}", err=True)
        if container is None:
            from tunebuild.containers.local_server import local_server
            from tunebuild.extras import require

            require("serve", what="serving as a local process")

            server = running.enter_context(
                local_server(built.parts, built.settings.root, host, port, quiet=quiet)
            )
            seconds = wait_until_ready(url, server.alive, ready_within, server.last_words)
            yield Endpoint(url, runner, seconds, lambda: _wait_for_process(server.process))
        else:
            wait_ready(container, options, ready_within)
            name = f"{runner} container {container.id[:12]}"
            yield Endpoint(url, name, time.monotonic() - started, lambda: _wait_for_container(container))


def _wait_for_process(process: subprocess.Popen[bytes]) -> int:
    status = process.wait()  # its log goes where ours goes
    return status if status >= 0 else 128 - status


def _wait_for_container(container: Container) -> int:
    for line in container.logs(follow=True):
        echo(line, err=True)
    return container.wait()


@contextmanager
def _container(
    image: Image, runtime: str, options: RunOptions, tagged: bool
) -> Iterator[tuple[Container, str]]:
    """A started container and its runtime's name."""
    from tunebuild.containers.find import find_container_runtime
    from tunebuild.image.oci.content import Content
    from tunebuild.publish.release import Release
    from tunebuild.publish.runtime import RuntimePublisher
    from tunebuild.store import Silent

    found = find_container_runtime("" if runtime == "auto" else runtime)
    if not tagged:
        image = replace(image, reference=_passing_name(image))
    release = Release((Content.of_image(image),))
    for note in RuntimePublisher(found, image.reference).publish(release, Silent()).notes:
        echo(f"  load    {note}", err=True)
    with ExitStack() as started:
        if not tagged:
            started.enter_context(ending_with(lambda: found.remove(image.reference)))
        container = found.run(image.reference, options)
        started.enter_context(ending_with(container.stop))
        yield container, found.name


@contextmanager
def ending_with(end: Callable[[], object]) -> Iterator[None]:
    """Call ``end`` at the end; where an error is on its way, what ``end`` raises is only said.

    An interrupt is no error but how an endpoint is ended: one that does not end then is news.
    """
    cause = None
    try:
        yield
    except Exception as error:
        cause = error
        raise
    finally:
        try:
            end()
        except Exception as error:  # a runtime's SDK raises errors of its own
            if cause is None:
                raise
            echo(f"  not cleared up: {error}", err=True)


def _passing_name(image: Image) -> ImageReference:
    """A name that nobody else uses, not even another process with the same image."""
    return replace(
        image.reference, repository="localhost/tunebuild-checked", tag=f"{image.digest[7:19]}-{os.getpid()}"
    )


def _refuse_taken(host: str, port: int) -> None:
    # What listens there would answer in the endpoint's stead.
    try:
        family = socket.getaddrinfo(host, port)[0][0]
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        message = f"cannot listen on {host}:{port}: {(error.strerror or str(error)).lower()}"
        raise fail("port-taken", message, "see --host and --port") from None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
