"""Whether every byte of a stored image is what it was written as."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tunebuild.errors import Diagnostic, TunebuildError, fail
from tunebuild.image.oci.archive import layout_files
from tunebuild.image.oci.blobs import check_digest, check_framing
from tunebuild.image.oci.content import OUTPUT
from tunebuild.image.oci.layer import Layer
from tunebuild.image.oci.manifest import Image, blob_path
from tunebuild.image.oci.reading import StoredImage, notes_of, read_file
from tunebuild.image.oci.reference import ImageReference


def check_image(image: StoredImage) -> None:
    """Read every blob and compare its digest with its name.

    Raises:
        TunebuildError: ``corrupt-image``, with every blob that is wrong and what it belongs to.
    """
    try:
        problems = _problems(image)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        message = f"{image.place}: one of its own files cannot be read: {error}"
        raise fail("corrupt-image", message, "copy or build the image again") from error
    if problems:
        raise TunebuildError(tuple(problems))


def _problems(image: StoredImage) -> list[Diagnostic]:
    roles = {
        blob_path(blob): f"{entry.get('artifactType') or notes_of(entry).get(OUTPUT, '')}"
        for entry, content in zip(image.index[1:], image.contents()[1:], strict=True)
        for blob in (content.digest, *(blob.digest for blob in content.blobs))
    }
    roles |= {blob_path(image.digest): "manifest", blob_path(image.config_digest): "config"}
    for number, layer in enumerate(image.layers, 1):
        roles[blob_path(layer.digest)] = f"layer {number} of {len(image.layers)} ({layer.created_by})"
    problems = [
        problem
        for name, role in roles.items()
        if (problem := check_digest(image.layout, name, role, image.place)) is not None
    ]
    if not problems:
        problems = [*_disagreements(image), *_not_as_written(image)]
    if image.place.is_file() and (framing := check_framing(image.place)):
        problems.append(framing)
    return problems


def _disagreements(image: StoredImage) -> Iterator[Any]:
    """What digests do not cover: ``manifest.json`` must name the same blobs, the config the same layers."""
    files = image.layout
    layers = [layer.digest for layer in image.layers]
    hint = "the archive was changed after it was written; build it again"
    diff_ids = image.config.get("rootfs", {}).get("diff_ids", [])
    if len(diff_ids) != len(layers):
        yield from fail("corrupt-image", f"{image.place}: config and manifest disagree", hint).diagnostics
    for layer in image.layers:
        if files.size(blob_path(layer.digest)) != layer.size:
            message = f"{image.place}: the manifest has another size for {layer.digest}"
            yield from fail("corrupt-image", message, hint).diagnostics
    if "manifest.json" in files.names():
        (docker,) = json.loads(read_file(files, "manifest.json"))
        same = docker["Config"] == blob_path(image.config_digest)
        if not same or docker["Layers"] != [blob_path(digest) for digest in layers]:
            message = f"{image.place}: manifest.json and index.json name different images"
            yield from fail("corrupt-image", message, hint).diagnostics


def _not_as_written(image: StoredImage) -> Iterator[Any]:
    """The few files that no digest covers, if we wrote them: they follow from those that one covers."""
    files = image.layout
    if "manifest.json" not in files.names() or "org.tunebuild.version" not in image.labels:
        return
    (docker,) = json.loads(read_file(files, "manifest.json"))
    reference = ImageReference.parse(docker["RepoTags"][0])
    layers = tuple(Layer("", "", (), x.digest, x.size) for x in image.layers)
    config, manifest = read_file(files, blob_path(image.config_digest)), image.manifest
    whole = Image(reference, layers, config, manifest)
    for file in layout_files(whole, image.contents()[1:])[-3:]:
        if read_file(files, file.path) != b"".join(s for s in file.segments if isinstance(s, bytes)):
            hint = "the archive was changed after it was written; build it again"
            message = f"{image.place}: {file.path} is not what was written"
            yield from fail("corrupt-image", message, hint).diagnostics
