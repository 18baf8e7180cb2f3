"""Image config, manifest and index as canonical JSON: equal values give equal bytes.

Source: OCI image specification 1.0; the ``Healthcheck`` key is Docker's extension.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tunebuild.image.oci.layer import Layer
from tunebuild.image.oci.reference import ImageReference
from tunebuild.store.digest import Digest, canonical_json, digest_bytes

EPOCH = "1970-01-01T00:00:00Z"
"""``created`` of every image: a build time would make each build another image."""

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"

_SECOND = 10**9  # durations in the config are nanoseconds

Variables = tuple[tuple[str, str], ...]
"""Names and values, in order, each name once."""


@dataclass(frozen=True, slots=True)
class Platform:
    """Operating system and architecture as Go spells them."""

    os: str = "linux"
    architecture: str = "amd64"


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """Docker's health check: ``command`` in exec form; times in seconds."""

    command: tuple[str, ...]
    interval: int = 10
    timeout: int = 5
    start_period: int = 120
    retries: int = 3


@dataclass(frozen=True, slots=True)
class Runtime:
    """How a container of the image runs."""

    entrypoint: tuple[str, ...]
    user: str = "65532:65532"
    env: Variables = ()
    labels: Variables = ()
    port: int = 8080
    working_dir: str = "/"
    healthcheck: Healthcheck | None = None
    stop_signal: str = "SIGTERM"
    platform: Platform = field(default_factory=Platform)


@dataclass(frozen=True, slots=True)
class Image:
    """A finished image: its layers, and the exact bytes of config and manifest."""

    reference: ImageReference
    layers: tuple[Layer, ...]
    config: bytes
    manifest: bytes

    @property
    def config_digest(self) -> Digest:
        """What Docker and Podman call the image id."""
        return digest_bytes(self.config)

    @property
    def digest(self) -> Digest:
        """Digest of the manifest: what registries know the image by."""
        return digest_bytes(self.manifest)

    @property
    def size(self) -> int:
        """Bytes of all layers."""
        return sum(layer.size for layer in self.layers)


def make_image(reference: ImageReference, runtime: Runtime, layers: tuple[Layer, ...]) -> Image:
    """Describe ``layers`` and ``runtime`` as one image. Reads nothing."""
    config = config_json(runtime, layers)
    manifest = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": descriptor(CONFIG_TYPE, digest_bytes(config), len(config)),
            "layers": [descriptor(LAYER_TYPE, layer.digest, layer.size) for layer in layers],
        }
    )
    return Image(reference, layers, config, manifest)


def config_json(runtime: Runtime, layers: Iterable[Layer]) -> bytes:
    """The image config."""
    layers = tuple(layers)
    config: dict[str, Any] = {
        "User": runtime.user,
        "Env": [f"{name}={value}" for name, value in runtime.env],
        "Entrypoint": list(runtime.entrypoint),
        "ExposedPorts": {f"{runtime.port}/tcp": {}},
        "WorkingDir": runtime.working_dir,
        "Labels": dict(runtime.labels),
        "StopSignal": runtime.stop_signal,
    }
    if runtime.healthcheck is not None:
        config["Healthcheck"] = healthcheck_json(runtime.healthcheck)
    return canonical_json(
        {
            "created": EPOCH,
            "os": runtime.platform.os,
            "architecture": runtime.platform.architecture,
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
            "history": [{"created": EPOCH, "created_by": layer.created_by} for layer in layers],
        }
    )


def healthcheck_json(check: Healthcheck) -> dict[str, Any]:
    """The ``Healthcheck`` key of a config."""
    return {
        "Test": ["CMD", *check.command],
        "Interval": check.interval * _SECOND,
        "Timeout": check.timeout * _SECOND,
        "StartPeriod": check.start_period * _SECOND,
        "Retries": check.retries,
    }


def healthcheck_of(found: Mapping[str, Any]) -> Healthcheck:
    """A config's ``Healthcheck`` key, read back."""
    return Healthcheck(
        tuple(found["Test"][1:]),
        found["Interval"] // _SECOND,
        found["Timeout"] // _SECOND,
        found["StartPeriod"] // _SECOND,
        found["Retries"],
    )


def index_entry(image: Image) -> dict[str, Any]:
    """How a layout's index names the image, so that containerd and skopeo find it."""
    return {
        **descriptor(MANIFEST_TYPE, image.digest, len(image.manifest)),
        "annotations": names_of(image.reference, image.reference.tag),
    }


def names_of(reference: ImageReference, tag: str) -> dict[str, str]:
    """Annotations of an index by which containerd and skopeo find an image."""
    name = ImageReference(reference.repository, tag)
    return {"io.containerd.image.name": name.full_name, "org.opencontainers.image.ref.name": tag}


def index_json(entries: Iterable[Mapping[str, Any]]) -> bytes:
    """``index.json`` of a layout."""
    return canonical_json({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": list(entries)})


def docker_manifest_json(image: Image) -> bytes:
    """``manifest.json`` of a docker-archive, pointing at the same blobs."""
    entry = {
        "Config": blob_path(image.config_digest),
        "RepoTags": [str(image.reference)],
        "Layers": [blob_path(layer.digest) for layer in image.layers],
    }
    return canonical_json([entry])


def blob_path(digest: Digest) -> str:
    """Where a layout keeps a blob."""
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def merge_variables(*groups: Variables) -> Variables:
    """Later groups win by name; a name keeps the place of its first mention.

    Replacing a base's list as a whole would drop what the base relies on, such as where its certificates are.
    """
    merged: dict[str, str] = {}
    for group in groups:
        merged.update(group)
    return tuple(merged.items())


def descriptor(media_type: str, digest: Digest, size: int) -> dict[str, Any]:
    """How a manifest or an index names a blob."""
    return {"mediaType": media_type, "digest": digest, "size": size}
