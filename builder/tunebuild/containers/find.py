"""Finds a container runtime that answers on this machine."""

from __future__ import annotations

from tunebuild.containers.runtime import ContainerRuntime
from tunebuild.errors import TunebuildError, fail
from tunebuild.extras import install_command, is_there


def find_container_runtime(name: str = "") -> ContainerRuntime:
    """The runtime called ``name`` (``docker`` or ``podman``), or the first of them that answers.

    Raises:
        TunebuildError: ``no-runtime``, with what was tried and why each was not usable.
    """
    from tunebuild.containers.docker import DockerRuntime
    from tunebuild.containers.podman import PodmanRuntime

    reasons = []
    for kind in (DockerRuntime, PodmanRuntime):
        if name in ("", kind.name):
            try:
                return kind()
            except TunebuildError as error:
                reasons.append(error.diagnostics[0].message)
    if not reasons:
        raise fail("no-runtime", f"there is no container runtime called {name!r}", "use docker or podman")
    docker = "start dockerd" if is_there("docker") else install_command(("docker",))
    hint = f"{docker} or install podman; building an archive and serving as a local process need neither"
    raise fail("no-runtime", f"no container runtime answers ({'; '.join(reasons)})", hint)
