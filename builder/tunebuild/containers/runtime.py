"""Container runtimes: load an image, run it, look into it. Docker by its SDK, Podman by its program.

Nothing here is imported until a runtime is asked for, so planning needs no SDK.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from tunebuild.client.readiness import READY_WITHIN, wait_until_ready
from tunebuild.image.oci.manifest import Image, Variables
from tunebuild.image.oci.reference import ImageReference
from tunebuild.store import Digest, Progress

_LOG_LINES = 20

GPU_HINT = (
    "a container is given GPUs by the NVIDIA Container Toolkit: install it on this machine (Docker: "
    "'nvidia-ctk runtime configure'; Podman: 'nvidia-ctk cdi generate'), or serve with --runtime none"
)


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What loading cost: the runtime's id of the image, and bytes sent of bytes in all layers.

    ``replaced`` is the id of another image that had the name before; that one is there without it now.
    """

    image_id: Digest
    sent: int
    total: int
    replaced: Digest | None = None


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a container is started. The rest is fixed: host network, read-only root, no capabilities.

    Attributes:
        host: address to listen on; the loopback interface unless others are meant to reach it.
        port: port to listen on.
        name: the container's name; the runtime makes one up if empty.
        memory: limit such as ``4g``; none if empty.
        gpus: give the container all GPUs.
        env: more variables.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    name: str = ""
    memory: str = ""
    gpus: bool = False
    env: Variables = ()

    @property
    def variables(self) -> dict[str, str]:
        """All variables of the container."""
        return {"TUNEBUILD_HOST": self.host, "TUNEBUILD_PORT": str(self.port), **dict(self.env)}


class Container(Protocol):
    """A started container."""

    @property
    def id(self) -> str:
        """The runtime's id."""

    def running(self) -> bool:
        """Whether its process is alive."""

    def health(self) -> str:
        """The health check's verdict: ``starting``, ``healthy``, ``unhealthy``, or empty without one."""

    def logs(self, *, follow: bool = False) -> Iterator[str]:
        """Lines written so far, or until it ends."""

    def wait(self) -> int:
        """Wait until it ends by itself; its exit status."""

    def stop(self, grace: int = 30) -> int:
        """SIGTERM, after ``grace`` seconds SIGKILL; remove the container; the exit status it had."""


class ContainerRuntime(Protocol):
    """A running container runtime."""

    name: str

    def load(self, image: Image, progress: Progress | None = None) -> LoadReport:
        """Give the runtime the image. Raises ``TunebuildError`` ``load-failed``."""

    def image_id(self, reference: ImageReference) -> Digest | None:
        """The id of an image that the runtime has; ``None`` if it has not."""

    def labels(self, reference: ImageReference) -> Mapping[str, str]:
        """Labels of an image. Raises ``TunebuildError`` ``no-image``."""

    def files(self, reference: ImageReference, prefix: str) -> Generator[tuple[str, bytes]]:
        """Regular files below ``prefix`` of an image, by name without it. Starts nothing."""

    def run(self, reference: ImageReference, options: RunOptions) -> Container:
        """Start a container. Raises ``TunebuildError`` ``no-image`` or ``run-failed``."""

    def remove(self, reference: ImageReference) -> None:
        """Forget the image, if it is there."""


def wait_ready(container: Container, options: RunOptions, timeout: float = READY_WITHIN) -> float:
    """Wait until the container's ``/readyz`` answers 200; the seconds it took.

    Raises:
        TunebuildError: ``server-ended`` or ``not-ready``, with the end of the container's log.
    """
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(options.host, options.host)  # noqa: S104
    url = f"http://{host}:{options.port}"
    return wait_until_ready(url, container.running, timeout, lambda: _tail(container))


def _tail(container: Container) -> str:
    lines = list(container.logs())[-_LOG_LINES:]
    return "the end of its log:\n" + "\n".join(lines) if lines else "its log is empty"
