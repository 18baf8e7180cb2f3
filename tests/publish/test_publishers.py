"""Publishers to a disk and to container runtimes: what they say is there is there, under that digest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from support.images import runtime
from tunebuild.containers.runtime import ContainerRuntime
from tunebuild.errors import TunebuildError
from tunebuild.image.oci.archive import write_archive, write_layout
from tunebuild.image.oci.content import Content
from tunebuild.image.oci.manifest import Image
from tunebuild.image.oci.reference import ImageReference
from tunebuild.image.plan import ImageInputs, assemble, plan_image
from tunebuild.publish.envelopes import weights_image
from tunebuild.publish.path import publisher_to
from tunebuild.publish.release import Release
from tunebuild.publish.runtime import RuntimePublisher
from tunebuild.publish.stored import release_of
from tunebuild.store import Silent

__all__ = ["runtime"]

_FORMS = pytest.mark.parametrize(
    ("name", "write", "step"), [("out.tar", write_archive, "archive"), ("out", write_layout, "layout")]
)


def _release(image: Image, *, weights: bool = False) -> Release:
    others = (weights_image(image),) if weights else ()
    return Release((Content.of_image(image), *others))


def _bytes(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


@pytest.mark.quick
@_FORMS
def test_what_is_on_disk_is_the_image_that_was_assembled(
    image: Image, tmp_path: Path, name: str, write: Callable[..., None], step: str
) -> None:
    publisher = publisher_to(tmp_path / name, image.reference)
    done = publisher.publish(_release(image), Silent())
    assert (publisher.step, done.name, done.digest) == (step, str(tmp_path / name), image.digest)
    (tmp_path / "expected").mkdir()
    write(image, tmp_path / "expected" / name)
    assert _bytes(tmp_path / name) == _bytes(tmp_path / "expected" / name)


@_FORMS
def test_the_same_release_is_written_once(
    image: Image, tmp_path: Path, name: str, write: Callable[..., None], step: str
) -> None:
    publisher, release = publisher_to(tmp_path / name, image.reference), _release(image, weights=True)
    first = publisher.publish(release, Silent())
    assert (first.sent, first.present) == (release.size, 0)
    again = publisher.publish(release, Silent())
    assert (again.sent, again.present) == (0, release.size)
    assert again.notes == (f"{tmp_path / name} is up to date",)


@_FORMS
def test_another_name_or_output_of_the_same_image_is_written(
    image: Image, tmp_path: Path, name: str, write: Callable[..., None], step: str
) -> None:
    path = tmp_path / name
    publisher_to(path, image.reference).publish(_release(image), Silent())
    publisher_to(path, image.reference).publish(_release(image, weights=True), Silent())
    stored, _ = release_of(path)
    assert [content.output for content in stored.contents] == ["", "weights"]
    renamed = replace(image.reference, tag="2")
    done = publisher_to(path, renamed).publish(_release(image), Silent())
    stored, called = release_of(path)
    assert called is not None
    assert called.tag == "2"
    assert [content.digest for content in stored.contents] == [done.digest]


@_FORMS
def test_what_cannot_be_written_is_an_error(
    image: Image, tmp_path: Path, name: str, write: Callable[..., None], step: str
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TunebuildError, match="cannot write"):
        publisher_to(tmp_path / "file" / name, image.reference).publish(_release(image), Silent())


@pytest.mark.runtime
def test_a_container_runtime_knows_the_image_by_the_digest_that_is_told(
    runtime: ContainerRuntime, inputs: ImageInputs
) -> None:
    name = ImageReference.parse("tunebuild-test/publisher:1")
    image = assemble(plan_image(replace(inputs, reference=name)))
    publisher = RuntimePublisher(runtime, name)
    try:
        first = publisher.publish(_release(image), Silent())
        assert (first.digest, first.replaced) == (runtime.image_id(name), None)
        (inputs.bundle / "checks.jsonl").write_text("edited")
        edited = assemble(plan_image(replace(inputs, reference=name)))
        second = publisher.publish(_release(edited), Silent())
        assert (second.digest, second.replaced) == (runtime.image_id(name), first.digest)
        assert second.notes[1].startswith(f"{name.full_name} stood for {first.digest[:19]}")
    finally:
        runtime.remove(name)
