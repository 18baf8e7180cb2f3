"""What is deployed: the facts that a manifest states, read from the image and never typed again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from tunebuild.deploy.memory import Memory, estimate_memory
from tunebuild.errors import fail
from tunebuild.image.oci.content import OUTPUT
from tunebuild.image.oci.manifest import Healthcheck, healthcheck_of
from tunebuild.image.oci.reading import StoredImage, notes_of
from tunebuild.image.oci.reference import ImageReference
from tunebuild.image.plan import (
    ADAPTER_LAYER,
    BUNDLE,
    HEALTHCHECK,
    MODELS,
    SCRATCH,
    VERSION_LABEL,
    WEIGHTS_SUFFIX,
)
from tunebuild.serve.bundle import FILE_NAME, Bundle
from tunebuild.serve.contract import end_seconds
from tunebuild.store.digest import Digest

_SPEC_LABEL = "org.tunebuild.spec"
_PROMPT_LABEL = "org.tunebuild.prompt"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An image that can be run, and what it says of itself.

    Attributes:
        repository: the image's name with its registry.
        tag: for people; the digest decides.
        digest: of the image's manifest.
        settings: what the server is told: engine, device, port, limits.
        uid, gid: who it runs as.
        scratch: directory for temporary files.
        platform: operating system and architecture as Go spells them.
        healthcheck: Docker's.
        stop_signal: what tells the server to drain.
        labels: digests of spec and prompt, by the image's own labels.
        size: bytes of all layers.
        memory: estimated.
        chat_template: whether the model's folder has one, which other servers need to chat.
        weights: digest of the image with that folder alone, if it was published, too.
    """

    repository: str
    tag: str
    digest: Digest
    settings: Bundle
    uid: int
    gid: int
    scratch: str
    platform: tuple[str, str]
    healthcheck: Healthcheck
    stop_signal: str
    labels: Mapping[str, str]
    size: int
    memory: Memory
    chat_template: bool = True
    weights: Digest | None = None

    @property
    def image(self) -> str:
        """The image by digest."""
        return f"{self.repository}@{self.digest}"

    @property
    def cuda(self) -> bool:
        """Whether it needs a GPU."""
        return self.settings.device == "cuda"

    @property
    def end_seconds(self) -> int:
        """The most that it takes from the stop signal to its end."""
        return end_seconds(self.settings.limits.drain_seconds)


def endpoint_of(image: StoredImage, reference: ImageReference) -> Endpoint:
    """Read an image.

    Args:
        image: in a registry or on disk.
        reference: the name that it is pulled by.

    Raises:
        TunebuildError: ``no-bundle`` or ``bad-bundle``: tunebuild did not make it, or another version did.
    """
    # Before any layer is looked into, which for a stranger's image would be fetched as a whole.
    ours = VERSION_LABEL in image.labels
    found = image.file(f"{BUNDLE}/{FILE_NAME}") if ours else None
    if found is None:
        hint = "name what 'tunebuild push' printed, not its weights or its adapter"
        raise fail("no-bundle", f"{reference} is no runnable image of tunebuild", hint)
    try:
        settings = Bundle.model_validate_json(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        message = f"{reference}: {FILE_NAME}: {where}: {first['msg']}"
        raise fail("bad-bundle", message, "use the tunebuild that built it, or build it again") from None
    config: Mapping[str, Any] = image.config["config"]
    variables = dict(text.partition("=")[::2] for text in config.get("Env") or ())
    uid, _, gid = str(config.get("User") or "").partition(":")
    check = config.get("Healthcheck")
    if not (uid.isdigit() and gid.isdigit()):
        raise fail("bad-bundle", f"{reference} is not configured as tunebuild does it", "build it again")
    architecture = str(image.config.get("architecture", "amd64"))
    model = json.loads(image.file(f"{MODELS}/config.json") or b"{}")
    return Endpoint(
        repository=reference.full_name.partition("@")[0].removesuffix(f":{reference.tag}"),
        tag=reference.tag,
        digest=image.digest,
        settings=settings,
        uid=int(uid),
        gid=int(gid),
        scratch=variables.get("TMPDIR", SCRATCH),
        platform=(str(image.config.get("os", "linux")), architecture),
        healthcheck=healthcheck_of(check) if check else HEALTHCHECK,
        stop_signal=str(config.get("StopSignal") or "SIGTERM"),
        labels={name: image.labels[name] for name in (_SPEC_LABEL, _PROMPT_LABEL) if name in image.labels},
        size=sum(int(layer["size"]) for layer in json.loads(image.manifest)["layers"]),
        memory=estimate_memory(settings, weight_bytes(image), model),
        chat_template=image.file(f"{MODELS}/chat_template.jinja") is not None,
        weights=_weights_beside(image),
    )


def _weights_beside(image: StoredImage) -> Digest | None:
    """The weights image in the same archive or layout."""
    found = (entry["digest"] for entry in image.index if notes_of(entry).get(OUTPUT) == "weights")
    return next(map(Digest, found), None)


def weight_bytes(image: StoredImage) -> int:
    """Bytes of the layers with weights, an adapter's included."""
    made_by = [
        step.get("created_by", "") for step in image.config.get("history", ()) if not step.get("empty_layer")
    ]
    sizes = [int(layer["size"]) for layer in json.loads(image.manifest)["layers"]]
    return sum(
        size
        for size, text in zip(sizes, made_by, strict=False)
        if text.endswith(WEIGHTS_SUFFIX) or text == ADAPTER_LAYER
    )
