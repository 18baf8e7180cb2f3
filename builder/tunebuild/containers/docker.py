"""Docker, through its Python SDK."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tunebuild.containers.runtime import GPU_HINT, LoadReport, RunOptions
from tunebuild.containers.stream import archive_stream, files_in_stream
from tunebuild.errors import fail
from tunebuild.extras import install_command
from tunebuild.image.oci.manifest import Image
from tunebuild.image.oci.reference import ImageReference
from tunebuild.store import Digest, Progress, Silent

_TIMEOUT = 3600  # seconds between two bytes of an answer; a runtime is silent while it unpacks gigabytes


def connect() -> Any:
    """A client of the runtime that the environment names.

    Raises:
        TunebuildError: ``no-runtime`` if the SDK is missing or nothing answers.
    """
    try:
        import docker
    except ImportError:
        raise fail(
            "no-runtime", "docker: its Python SDK is not installed", install_command(("docker",))
        ) from None
    try:
        client = docker.from_env(timeout=5)
        client.ping()
    except docker.errors.DockerException as error:
        raise fail("no-runtime", f"docker: {short_error(error)}", "start dockerd") from error
    client.api.timeout = _TIMEOUT
    return client


class DockerRuntime:
    """A running dockerd."""

    name = "docker"

    def __init__(self) -> None:
        self._client = connect()

    def load(self, image: Image, progress: Progress | None = None) -> LoadReport:
        """Stream the image, without the layers that the runtime has already."""
        import docker

        progress = progress or Silent()
        before = self.image_id(image.reference)
        known = self._known_layers([layer.digest for layer in image.layers])
        try:
            self._send(image, progress, known)
        except docker.errors.DockerException as error:
            if not known:
                raise fail(
                    "load-failed", f"docker did not take {image.reference}: {short_error(error)}"
                ) from error
            # A layer was removed meanwhile, or this runtime's store cannot be asked this way.
            known = []
            self._send_all(image, progress)
        sent = sum(layer.size for layer in image.layers if layer.digest not in known)
        now = self.image_id(image.reference) or image.config_digest
        return LoadReport(now, sent, image.size, before if before != now else None)

    def image_id(self, reference: ImageReference) -> Digest | None:
        """The id of an image that the runtime has."""
        import docker

        try:
            return Digest(self._client.images.get(str(reference)).id)
        except docker.errors.ImageNotFound:
            return None

    def labels(self, reference: ImageReference) -> Mapping[str, str]:
        """Labels of an image."""
        import docker

        try:
            return dict(self._client.images.get(str(reference)).labels)
        except docker.errors.ImageNotFound:
            raise _no_image(reference) from None

    def files(self, reference: ImageReference, prefix: str) -> Generator[tuple[str, bytes]]:
        """Regular files below ``prefix``, read from a container that is never started."""
        import docker

        with _explained(reference):
            container = self._client.containers.create(str(reference), network_mode="none")
        try:
            blocks, _ = container.get_archive("/" + prefix.strip("/"))
            yield from files_in_stream(iter(blocks))
        except docker.errors.NotFound:
            return
        finally:
            container.remove(force=True)

    def run(self, reference: ImageReference, options: RunOptions) -> DockerContainer:
        """Start a container."""
        import docker

        gpus = [docker.types.DeviceRequest(count=-1, capabilities=[["gpu"]])] if options.gpus else []
        with _explained(reference):
            container = self._client.containers.create(
                str(reference),
                name=options.name or None,
                environment=options.variables,
                network_mode="host",
                read_only=True,
                tmpfs={"/tmp": ""},  # noqa: S108
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                mem_limit=options.memory or None,
                device_requests=gpus,
            )
            try:
                container.start()
            except BaseException:
                container.remove(force=True)
                raise
        return DockerContainer(container)

    def remove(self, reference: ImageReference) -> None:
        """Forget the image, if it is there."""
        import docker

        try:
            self._client.images.remove(str(reference))
        except docker.errors.ImageNotFound:
            return
        except docker.errors.DockerException as error:
            raise fail("remove-failed", f"docker did not remove {reference}: {short_error(error)}") from error

    def _known_layers(self, layers: Sequence[Digest]) -> list[Digest]:
        """The longest start of ``layers`` that some image of the runtime has, too.

        The runtime names a layer by itself and all below it, so only a common start can be left out.
        """
        best = 0
        for image in self._client.images.list():
            theirs = image.attrs.get("RootFS", {}).get("Layers") or []
            common = 0
            while common < min(len(theirs), len(layers)) and theirs[common] == layers[common]:
                common += 1
            best = max(best, common)
        return list(layers[:best])

    def _send(self, image: Image, progress: Progress, omitted: Sequence[Digest]) -> None:
        self._client.images.load(archive_stream(image, progress, frozenset(omitted)))

    def _send_all(self, image: Image, progress: Progress) -> None:
        import docker

        try:
            self._send(image, progress, ())
        except docker.errors.DockerException as error:
            raise fail(
                "load-failed", f"docker did not take {image.reference}: {short_error(error)}"
            ) from error


class DockerContainer:
    """A container of Docker's."""

    def __init__(self, container: Any) -> None:
        self._container = container

    @property
    def id(self) -> str:
        """The runtime's id."""
        return str(self._container.id)

    def running(self) -> bool:
        """Whether its process is alive."""
        self._container.reload()
        return bool(self._container.status == "running")

    def health(self) -> str:
        """What the image's health check says."""
        self._container.reload()
        return str(self._container.attrs["State"].get("Health", {}).get("Status", ""))

    def logs(self, *, follow: bool = False) -> Iterator[str]:
        """Lines written so far, or until it ends."""
        rest = b""
        for block in self._container.logs(stream=True, follow=follow):
            *lines, rest = (rest + block).split(b"\n")
            yield from (line.decode("utf-8", "replace") for line in lines)
        if rest:
            yield rest.decode("utf-8", "replace")

    def wait(self) -> int:
        """Wait until it ends by itself; its exit status."""
        return int(self._container.wait()["StatusCode"])

    def stop(self, grace: int = 30) -> int:
        """SIGTERM, after ``grace`` seconds SIGKILL; remove it; its exit status."""
        self._container.stop(timeout=grace)
        status = self.wait()
        self._container.remove(force=True)
        return status


@contextmanager
def _explained(reference: ImageReference) -> Iterator[None]:
    import docker

    try:
        yield
    except docker.errors.ImageNotFound:
        raise _no_image(reference) from None
    except docker.errors.DockerException as error:
        said = short_error(error)
        hint = GPU_HINT if "capabilities: [[gpu]]" in said else ""
        raise fail("run-failed", f"docker did not start {reference}: {said}", hint) from error


def _no_image(reference: ImageReference) -> Exception:
    return fail("no-image", f"docker has no image {reference}", "load it first")


def short_error(error: Exception) -> str:
    """What an error of the SDK says, on one line."""
    # Connection errors of the SDK nest three libraries deep; the innermost says what happened.
    text = str(getattr(error, "explanation", None) or error)
    if "Connection aborted" in text or "Error while fetching server API version" in text:
        text = "it is not running or not reachable (" + text.rpartition("(")[2].rstrip(")\"' ") + ")"
    return text.strip()
