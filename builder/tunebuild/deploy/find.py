"""Finds the image that is deployed: in a registry by a spec or a name, or in an archive or layout.

A digest comes from the image alone. A spec that was edited after the push no longer matches its image, which
is an error.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tunebuild.deploy.endpoint import Endpoint, endpoint_of
from tunebuild.errors import TunebuildError, fail
from tunebuild.extras import require
from tunebuild.image.oci.reading import StoredImage, open_archive
from tunebuild.image.oci.reference import ImageReference
from tunebuild.spec import load_spec
from tunebuild.spec.canonical import effective
from tunebuild.store.digest import Digest, digest_json

if TYPE_CHECKING:
    from tunebuild.registry import Repository


@dataclass(frozen=True, slots=True)
class Place:
    """How a registry is reached."""

    plain_http: bool = False
    ca_file: Path | None = None


def find_endpoint(
    source: str, place: Place, overrides: Sequence[str] = ()
) -> tuple[Endpoint, tuple[str, ...]]:
    """The image of a spec, a reference, an archive or a layout; and what people should know.

    Args:
        source: as on the command line.
        place: how a registry is reached.
        overrides: ``PATH=VALUE`` texts, of a spec.

    Raises:
        TunebuildError: there is no such image yet, with what to run; or it is not one that can be deployed.
    """
    path = Path(source)
    if _is_stored(path):
        return _of_file(path)
    require("image", what="'deploy' of an image in a registry")
    if is_spec(source):
        return _of_spec(path, place, overrides), ()
    reference = _with_registry(ImageReference.parse(source), "")
    return _remote(reference, place, f"tunebuild push SPEC {source}"), ()


def is_spec(source: str) -> bool:
    """Whether a word of the command line names a spec, not an image."""
    path = Path(source)
    return not _is_stored(path) and (path.suffix in (".yaml", ".yml") or path.is_file())


def _is_stored(path: Path) -> bool:
    return path.suffix == ".tar" or path.is_dir()


def _of_spec(path: Path, place: Place, overrides: Sequence[str]) -> Endpoint:
    loaded = load_spec(path, overrides)
    try:
        reference = _with_registry(ImageReference.parse(loaded.spec.reference), "image.repository")
    except TunebuildError as error:
        raise loaded.place(error) from None
    sets = "".join(f" --set {text}" for text in overrides)
    endpoint = _remote(reference, place, push := f"tunebuild push {path}{sets}")
    if endpoint.settings.spec_digest != digest_json(effective(loaded.spec)):
        message = f"{reference} in the registry was built from another spec than {path} is now"
        hint = f"run '{push}', give the --set of its build, or deploy it by its name: {reference}"
        raise fail("not-pushed", message, hint)
    return endpoint


def _of_file(path: Path) -> tuple[Endpoint, tuple[str, ...]]:
    image = open_archive(path)
    if not image.name:
        raise fail("no-registry", f"{path} does not say what it is called", _push_archive(path))
    reference = ImageReference.parse(image.name)
    if _is_local(reference):
        raise fail(
            "no-registry", f"{path} names no registry that it could be pulled from", _push_archive(path)
        )
    note = f"the digest is that of {path}; a registry was not asked: 'tunebuild push {path}' sends it there"
    return endpoint_of(image, reference), (note,)


def _push_archive(path: Path) -> str:
    name = f"registry.example.com/team/{path.stem}:1"
    return f"run 'tunebuild push {path} {name}' with your registry, then 'tunebuild deploy {name}'"


def _remote(reference: ImageReference, place: Place, push: str) -> Endpoint:
    from tunebuild.publish.remote import open_remote
    from tunebuild.registry import Options, Registries

    options = Options.of_machine(plain_http=place.plain_http, ca_file=place.ca_file)
    repository = Registries(options).repository(reference.registry, reference.path)
    with TemporaryDirectory(prefix="tunebuild-") as scratch:
        try:
            image = open_remote(repository, reference, Path(scratch))
        except TunebuildError as error:
            if error.diagnostics[0].code != "no-image":
                raise
            message = f"{reference.registry} has no {reference}, so there is no digest to deploy yet"
            raise fail("not-pushed", message, f"run '{push}' first") from None
        except (LookupError, TypeError, ValueError):
            message = f"{reference} is an index of several images, or no image at all"
            raise fail("no-bundle", message, "name a runnable image that tunebuild built") from None
        found = endpoint_of(image, reference)
        return replace(found, weights=_weights_of(image, repository, reference)) if reference.tag else found


def _weights_of(image: StoredImage, repository: Repository, reference: ImageReference) -> Digest | None:
    """The weights image that was pushed with the image; ``None`` if there is none of this one."""
    pushed = repository.get_manifest(f"{reference.tag}-weights")
    if pushed is None:
        return None
    ours = {layer["digest"] for layer in json.loads(image.manifest)["layers"]}
    theirs = {layer["digest"] for layer in pushed.json().get("layers", ())}
    return pushed.digest if theirs and theirs <= ours else None


def _is_local(reference: ImageReference) -> bool:
    return reference.full_name.startswith("docker.io/library/")


def _with_registry(reference: ImageReference, path: str) -> ImageReference:
    if _is_local(reference):
        hint = (
            "set image.repository, e.g. registry.example.com/team/bot, and push"
            if path
            else "give the name that it was pushed under, such as registry.example.com/team/bot:1"
        )
        raise fail("no-registry", f"{reference} names no registry", hint, path=path)
    return reference
