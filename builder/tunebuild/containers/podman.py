"""Podman, through its program: it has no daemon whose API could be asked."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
from collections.abc import Generator, Iterator, Mapping
from typing import Any, NoReturn

from tunebuild.containers.runtime import GPU_HINT, LoadReport, RunOptions
from tunebuild.containers.stream import archive_stream, files_in_stream
from tunebuild.errors import fail
from tunebuild.image.oci.manifest import Image
from tunebuild.image.oci.reference import ImageReference
from tunebuild.image.oci.tar import BLOCK
from tunebuild.store import Digest, Progress, Silent

_GPUS = "nvidia.com/gpu=all"  # every GPU, as the Container Device Interface names them
_DEFAULT_LIMIT = 1048576  # what podman asks for open files and processes, whatever we are allowed
_MODEST_LIMIT = 16384  # far above what a server with a few hundred threads needs


class PodmanRuntime:
    """A podman that works."""

    name = "podman"

    def __init__(self) -> None:
        if shutil.which("podman") is None:
            raise fail("no-runtime", "podman: not installed", "install podman")
        done = subprocess.run(["podman", "version"], capture_output=True, text=True)
        if done.returncode:
            raise fail("no-runtime", f"podman: {_last_line(done.stderr)}", "see 'podman info'")

    def load(self, image: Image, progress: Progress | None = None) -> LoadReport:
        """Stream the image into ``podman load``, which takes nothing less than the whole."""
        before = self.image_id(image.reference)
        process = subprocess.Popen(
            ["podman", "load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdin is not None
        try:
            for block in archive_stream(image, progress or Silent()):
                process.stdin.write(block)
        except BrokenPipeError:
            pass  # it gave up, and says why below
        except BaseException:
            process.kill()
            process.communicate()
            raise
        errors = process.communicate()[1].decode("utf-8", "replace")
        if process.returncode:
            raise fail("load-failed", f"podman did not take {image.reference}: {_last_line(errors)}")
        now = self.image_id(image.reference) or image.config_digest
        return LoadReport(now, image.size, image.size, before if before != now else None)

    def image_id(self, reference: ImageReference) -> Digest | None:
        """The id of an image that podman has."""
        found = self._inspect(reference)
        return Digest("sha256:" + found["Id"].removeprefix("sha256:")) if found else None

    def labels(self, reference: ImageReference) -> Mapping[str, str]:
        """Labels of an image."""
        found = self._inspect(reference)
        if found is None:
            _no_image(reference)
        return dict(found["Labels"] or {})

    def files(self, reference: ImageReference, prefix: str) -> Generator[tuple[str, bytes]]:
        """Regular files below ``prefix``, read from a container that is never started."""
        if self._inspect(reference) is None:
            _no_image(reference)
        created = _podman("create", "--network", "none", *_limits(), _local(reference))
        try:
            source = f"{created}:/{prefix.strip('/')}"
            with subprocess.Popen(
                ["podman", "cp", source, "-"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            ) as process:
                assert process.stdout is not None
                blocks = iter(lambda: process.stdout.read(BLOCK), b"")  # type: ignore[union-attr]
                first = next(blocks, b"")  # nothing at all if there is no such path
                if first:
                    yield from files_in_stream(_chain(first, blocks))
        finally:
            _podman("rm", "--force", created)

    def run(self, reference: ImageReference, options: RunOptions) -> PodmanContainer:
        """Start a container."""
        if self._inspect(reference) is None:
            _no_image(reference)
        arguments = ["--network", "host", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"]  # noqa: S108
        arguments += ["--security-opt", "no-new-privileges", *_limits()]
        arguments += [
            part for name, value in options.variables.items() for part in ("--env", f"{name}={value}")
        ]
        arguments += ["--name", options.name] if options.name else []
        arguments += ["--memory", options.memory] if options.memory else []
        arguments += ["--device", _GPUS] if options.gpus else []
        created = _podman("create", *arguments, _local(reference))
        try:
            _podman("start", created)
        except BaseException:
            _podman("rm", "--force", created)
            raise
        return PodmanContainer(created)

    def remove(self, reference: ImageReference) -> None:
        """Forget the image, if it is there."""
        if self._inspect(reference) is not None:
            _podman("rmi", _local(reference))

    def _inspect(self, reference: ImageReference) -> Any:
        done = subprocess.run(
            ["podman", "image", "inspect", _local(reference)], capture_output=True, text=True
        )
        return json.loads(done.stdout)[0] if done.returncode == 0 else None


class PodmanContainer:
    """A container of Podman's."""

    def __init__(self, container: str) -> None:
        self.id = container

    def running(self) -> bool:
        """Whether its process is alive."""
        return _podman("inspect", "--format", "{{.State.Status}}", self.id) == "running"

    def health(self) -> str:
        """What the image's health check says."""
        return str(self._state().get("Health", self._state().get("Healthcheck", {})).get("Status", ""))

    def logs(self, *, follow: bool = False) -> Iterator[str]:
        """Lines written so far, or until it ends."""
        command = ["podman", "logs", *(["--follow"] if follow else []), self.id]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                yield line.rstrip("\n")

    def wait(self) -> int:
        """Wait until it ends by itself; its exit status."""
        return int(_podman("wait", self.id))

    def stop(self, grace: int = 30) -> int:
        """SIGTERM, after ``grace`` seconds SIGKILL; remove it; its exit status."""
        _podman("stop", "--time", str(grace), self.id)
        status = int(self._state()["ExitCode"])
        _podman("rm", "--force", self.id)
        return status

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(_podman("inspect", self.id))[0]["State"]
        return state


def _podman(*arguments: str) -> str:
    done = subprocess.run(["podman", *arguments], capture_output=True, text=True)
    if done.returncode:
        said = _last_line(done.stderr)
        hint = GPU_HINT if _GPUS in said else "see 'podman info'"
        raise fail("run-failed", f"podman {arguments[0]}: {said}", hint)
    return done.stdout.strip()


def _limits() -> Iterator[str]:
    # Podman asks for its own defaults and is refused where our hard limits are lower, or where the limits
    # are lowered on the way to the container; so what we ask for instead is modest, too.
    for name, kind in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC)):
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY and hard < _DEFAULT_LIMIT:
            limit = min(hard, _MODEST_LIMIT)
            yield from ("--ulimit", f"{name}={limit}:{limit}")


def _local(reference: ImageReference) -> str:
    return reference.full_name  # short names would make podman look at its search list


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _no_image(reference: ImageReference) -> NoReturn:
    raise fail("no-image", f"podman has no image {reference}", "load it first")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it says nothing"])[-1]
