"""Archives and layouts on disk: whole or absent, readable by others, and every changed byte is noticed."""

import fcntl
import io
import json
import os
import resource
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunebuild.errors import TunebuildError
from tunebuild.image.oci.archive import write_archive, write_layout
from tunebuild.image.oci.integrity import check_image
from tunebuild.image.oci.layer import Entry, FilesLayer, layer_of_blob
from tunebuild.image.oci.manifest import Image, blob_path
from tunebuild.image.oci.reading import open_archive
from tunebuild.image.plan import ImageInputs, assemble, plan_image
from tunebuild.store import digest_file


def test_one_archive_is_a_layout_and_a_docker_archive(image: Image, tmp_path: Path) -> None:
    write_archive(image, tmp_path / "image.tar")
    with tarfile.open(tmp_path / "image.tar") as tar:
        read = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
    (docker,) = json.loads(read["manifest.json"])
    assert docker["RepoTags"] == ["tunebuild-test/demo:1"]
    assert [len(read[name]) for name in docker["Layers"]] == [layer.size for layer in image.layers]
    assert json.loads(read["index.json"])["manifests"][0]["digest"] == image.digest
    config = json.loads(read[docker["Config"]])
    assert config["rootfs"]["diff_ids"] == [layer.digest for layer in image.layers]
    assert config["config"]["User"] == "65532:65532"
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["image.tar"]


def test_archive_and_layout_hold_the_same_and_read_the_same(image: Image, tmp_path: Path) -> None:
    write_archive(image, tmp_path / "image.tar")
    write_layout(image, tmp_path / "layout")
    for place in (tmp_path / "image.tar", tmp_path / "layout"):
        stored = open_archive(place)
        check_image(stored)
        assert (stored.digest, stored.config_digest) == (image.digest, image.config_digest)
        assert stored.name == "docker.io/tunebuild-test/demo:1"
        assert stored.labels["org.opencontainers.image.title"] == "demo"
        assert [layer.created_by for layer in stored.layers] == [layer.created_by for layer in image.layers]
        assert dict(stored.files("/opt/tunebuild/bundle/prompt")) == {
            "golden.json": b"[]",
            "prompt.json": b"{}",
        }


def test_the_bundle_comes_back_as_it_went_in(image: Image, inputs: ImageInputs, tmp_path: Path) -> None:
    write_archive(image, tmp_path / "image.tar")
    count = open_archive(tmp_path / "image.tar").extract("opt/tunebuild/bundle", tmp_path / "out")
    assert count == 7
    for file in inputs.bundle.rglob("*.*"):
        assert (tmp_path / "out" / file.relative_to(inputs.bundle)).read_bytes() == file.read_bytes()


def test_two_builds_write_the_same_archive(image: Image, inputs: ImageInputs, tmp_path: Path) -> None:
    write_archive(image, tmp_path / "a.tar")
    write_archive(assemble(plan_image(inputs)), tmp_path / "b.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_a_layout_is_updated_in_place_and_old_blobs_go(
    image: Image, inputs: ImageInputs, tmp_path: Path
) -> None:
    layout = tmp_path / "layout"
    write_layout(image, layout)
    weights = layout / blob_path(image.layers[1].digest)
    before = weights.stat()
    (inputs.bundle / "checks.jsonl").write_text("")
    edited = assemble(plan_image(inputs))
    write_layout(edited, layout)
    assert weights.stat().st_mtime_ns == before.st_mtime_ns
    assert not (layout / blob_path(image.layers[-1].digest)).exists()
    check_image(open_archive(layout))


def test_somebody_elses_directory_is_left_alone(image: Image, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(TunebuildError, match="not an OCI layout"):
        write_layout(image, tmp_path)


def test_every_blob_with_a_changed_byte_is_named(image: Image, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    write_archive(image, archive)
    with tarfile.open(archive) as tar:
        places = {m.name: m.offset_data + m.size // 2 for m in tar}
    whole = archive.read_bytes()
    for layer in image.layers:
        offset = places[blob_path(layer.digest)]
        archive.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :])
        with pytest.raises(TunebuildError, match="corrupt") as caught:
            check_image(open_archive(archive))
        assert layer.created_by in str(caught.value)
        assert layer.digest.removeprefix("sha256:") in str(caught.value)
        assert len(caught.value.diagnostics) == 1


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_changed_byte_of_a_file_goes_unnoticed(data: st.DataObject, shared: tuple[Path, bytes]) -> None:
    archive, whole = shared
    with tarfile.open(archive) as tar:
        ranges = [(m.offset_data, m.size) for m in tar if m.name.startswith("blobs/") and m.size]
    start, size = data.draw(st.sampled_from(ranges))
    offset = start + data.draw(st.integers(0, size - 1))
    mask = data.draw(st.integers(1, 255))
    changed = archive.with_name("changed.tar")
    changed.write_bytes(whole[:offset] + bytes([whole[offset] ^ mask]) + whole[offset + 1 :])
    with pytest.raises(TunebuildError):
        check_image(open_archive(changed))


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory, make_inputs: Callable[[Path], ImageInputs]
) -> tuple[Path, bytes]:
    root = tmp_path_factory.mktemp("shared")
    write_archive(assemble(plan_image(make_inputs(root))), root / "image.tar")
    return root / "image.tar", (root / "image.tar").read_bytes()


def test_a_cut_archive_is_refused(image: Image, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    write_archive(image, archive)
    os.truncate(archive, archive.stat().st_size // 2)
    with pytest.raises(TunebuildError, match="cannot read an image"):
        open_archive(archive)


@pytest.mark.parametrize("content", [b"", b"not a tar", bytes(2048)])
def test_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(TunebuildError, match="cannot read an image"):
        open_archive(tmp_path / "x.tar")
    with pytest.raises(TunebuildError, match="there is no image"):
        open_archive(tmp_path / "absent.tar")


def test_a_source_that_changes_after_planning_is_noticed(
    image: Image, inputs: ImageInputs, tmp_path: Path
) -> None:
    shard = inputs.bundle / "model" / "model-00001-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    with pytest.raises(TunebuildError, match=r"model-00001-of-00002\.safetensors is not what was measured"):
        write_archive(image, tmp_path / "image.tar")
    assert not list(tmp_path.glob("*.tar*")) + list(tmp_path.glob(".*"))


@pytest.mark.parametrize("writer", [write_archive, write_layout])
def test_a_full_disk_is_one_clear_error_and_leaves_nothing(
    image: Image, tmp_path: Path, writer: Callable[[Image, Path], None]
) -> None:
    # A file size limit takes the same path as a full disk and needs no rights to set up.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(TunebuildError, match="no space left") as caught:
            writer(image, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.diagnostics[0].code == "disk-full"
    left = [p.name for p in tmp_path.rglob("*") if "in" not in p.relative_to(tmp_path).parts and p.is_file()]
    assert "index.json" not in left
    assert not [name for name in left if "partial" in name or name == "out"]


def test_a_second_writer_waits_its_turn(image: Image, tmp_path: Path) -> None:
    with (tmp_path / ".image.tar.partial").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(TunebuildError, match="another build is writing"):
            write_archive(image, tmp_path / "image.tar")
    write_archive(image, tmp_path / "image.tar")  # what a killed writer left is taken over


def test_skopeo_reads_archive_and_layout(image: Image, tmp_path: Path) -> None:
    write_archive(image, tmp_path / "image.tar")
    write_layout(image, tmp_path / "layout")
    places = (
        f"oci-archive:{tmp_path}/image.tar",
        f"oci:{tmp_path}/layout",
        f"docker-archive:{tmp_path}/image.tar",
    )
    for place in places:
        raw = subprocess.run(["skopeo", "inspect", "--config", place], capture_output=True, check=True).stdout
        assert json.loads(raw)["config"]["User"] == "65532:65532"


def test_large_files_can_be_shared_with_the_image(inputs: ImageInputs, image: Image, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    write_archive(image, archive)
    shard = (inputs.bundle / "model" / "model-00001-of-00002.safetensors").read_bytes()
    assert archive.read_bytes().index(shard) % 4096 == 0


def test_an_upper_layer_hides_a_lower_one(inputs: ImageInputs, tmp_path: Path) -> None:
    plan = plan_image(inputs)
    patch = FilesLayer("patch", "patch", (Entry("opt/tunebuild/bundle/bundle.json", b"new"),))
    write_layout(assemble(replace(plan, layers=(*plan.layers, patch))), tmp_path / "layout")
    assert dict(open_archive(tmp_path / "layout").files("opt/tunebuild/bundle"))["bundle.json"] == b"new"


@pytest.mark.parametrize("part", ["digest", "config_digest"])
def test_a_manifest_or_config_that_was_rewritten_is_not_opened(
    image: Image, tmp_path: Path, part: str
) -> None:
    write_layout(image, tmp_path / "layout")
    path = tmp_path / "layout" / blob_path(getattr(image, part))
    path.write_text(json.dumps(json.loads(path.read_text()), indent=1))
    with pytest.raises(TunebuildError, match="has the digest"):
        open_archive(tmp_path / "layout")


@pytest.mark.parametrize("name", ["../outside", "sub/../../outside", "/{out}/outside"])
def test_no_name_in_a_strangers_archive_leads_out_of_the_directory(
    inputs: ImageInputs, tmp_path: Path, name: str
) -> None:
    place = tmp_path / "evil.tar"
    with tarfile.open(place, "w") as tar:
        entry = tarfile.TarInfo("opt/tunebuild/bundle/" + name.format(out=tmp_path))
        entry.size = 1
        tar.addfile(entry, io.BytesIO(b"x"))
    layer = layer_of_blob(place, digest_file(place), place.stat().st_size, name="x", created_by="x")
    plan = plan_image(inputs)
    write_layout(assemble(replace(plan, layers=(*plan.layers, layer))), tmp_path / "layout")
    with pytest.raises(TunebuildError, match="holds a file named"):
        open_archive(tmp_path / "layout").extract("opt/tunebuild/bundle", tmp_path / "out")
    assert not list(tmp_path.rglob("outside"))


def _edited(inputs: ImageInputs) -> Image:
    (inputs.bundle / "checks.jsonl").write_text("edited")
    return assemble(plan_image(inputs))


def test_an_edit_rewrites_the_end_of_an_archive_only(
    image: Image, inputs: ImageInputs, tmp_path: Path
) -> None:
    write_archive(image, tmp_path / "image.tar")
    before = (tmp_path / "image.tar").stat().st_ino
    edited = _edited(inputs)
    write_archive(edited, tmp_path / "new.tar")
    # Weights that are gone cannot have been read.
    for weights in inputs.bundle.rglob("*.safetensors"):
        weights.unlink()
    write_archive(edited, tmp_path / "image.tar")
    assert (tmp_path / "image.tar").stat().st_ino == before
    assert (tmp_path / "image.tar").read_bytes() == (tmp_path / "new.tar").read_bytes()
    check_image(open_archive(tmp_path / "image.tar"))
    assert not [*tmp_path.glob(".*.partial")]


def test_an_edit_that_fails_leaves_the_old_archive(image: Image, inputs: ImageInputs, tmp_path: Path) -> None:
    write_archive(image, tmp_path / "image.tar")
    before = (tmp_path / "image.tar").read_bytes()
    edited = _edited(inputs)
    (inputs.bundle / "checks.jsonl").write_text("EDITED")  # after its digest was taken
    with pytest.raises(TunebuildError) as raised:
        write_archive(edited, tmp_path / "image.tar")
    assert raised.value.diagnostics[0].code in ("file-changed", "store-corrupt")
    assert (tmp_path / "image.tar").read_bytes() == before
    assert not [*tmp_path.glob(".*.partial")]


def test_an_edit_meets_what_a_killed_run_left(image: Image, inputs: ImageInputs, tmp_path: Path) -> None:
    write_archive(image, tmp_path / "image.tar")
    (tmp_path / ".image.tar.partial").write_bytes(b"half")
    edited = _edited(inputs)
    write_archive(edited, tmp_path / "image.tar")
    assert open_archive(tmp_path / "image.tar").digest == edited.digest
    assert not [*tmp_path.glob(".*.partial")]


@pytest.mark.parametrize("name", ["image.tar", ".image.tar.partial"])
def test_an_edit_waits_its_turn(image: Image, inputs: ImageInputs, tmp_path: Path, name: str) -> None:
    write_archive(image, tmp_path / "image.tar")
    edited = _edited(inputs)
    with (tmp_path / name).open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(TunebuildError) as raised:
            write_archive(edited, tmp_path / "image.tar")
    assert raised.value.diagnostics[0].code == "busy"
    assert open_archive(tmp_path / "image.tar").digest == image.digest
    write_archive(edited, tmp_path / "image.tar")  # when the other one has let go
    assert open_archive(tmp_path / "image.tar").digest == edited.digest
