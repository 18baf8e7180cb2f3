"""Real runtimes: loading, looking inside, and what users are told when something is missing."""

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tunebuild.containers.docker import connect
from tunebuild.containers.find import find_container_runtime
from tunebuild.containers.runtime import ContainerRuntime, RunOptions
from tunebuild.errors import TunebuildError
from tunebuild.image.oci.archive import write_archive
from tunebuild.image.oci.manifest import Image
from tunebuild.image.oci.reference import ImageReference
from tunebuild.image.plan import ImageInputs, assemble, plan_image
from tunebuild.publish.stored import named_release_of


@pytest.mark.runtime
def test_the_runtime_keeps_our_image_id(runtime: ContainerRuntime, image: Image) -> None:
    report = runtime.load(image)
    try:
        assert report.image_id == image.config_digest
        assert runtime.image_id(image.reference) == image.config_digest
        assert (
            runtime.labels(image.reference)["org.opencontainers.image.title"]
            == image.reference.repository.rpartition("/")[2]
        )
    finally:
        runtime.remove(image.reference)
    assert runtime.image_id(image.reference) is None


@pytest.mark.runtime
def test_files_of_an_image_are_read_without_starting_it(
    runtime: ContainerRuntime, loaded: ImageReference
) -> None:
    found = dict(runtime.files(loaded, "/opt/tunebuild/bundle/prompt"))
    assert found == {"golden.json": b"[]", "prompt.json": b"{}"}
    assert list(runtime.files(loaded, "opt/absent")) == []


@pytest.mark.runtime
def test_an_image_that_is_not_there_is_named(runtime: ContainerRuntime) -> None:
    absent = ImageReference.parse("tunebuild-test/absent:1")
    for attempt in (
        lambda: runtime.labels(absent),
        lambda: runtime.run(absent, RunOptions()),
        lambda: list(runtime.files(absent, "opt")),
    ):
        with pytest.raises(TunebuildError, match="has no image tunebuild-test/absent:1"):
            attempt()


@pytest.mark.runtime
def test_a_container_that_cannot_start_leaves_nothing(
    runtime: ContainerRuntime, loaded: ImageReference
) -> None:
    with pytest.raises(TunebuildError, match="/usr/bin/python3"):  # the synthetic base has no Python
        runtime.run(loaded, RunOptions(name="tunebuild-test-cannot-start"))
    listed = subprocess.run(
        [runtime.name, "ps", "--all", "--quiet", "--filter", "name=tunebuild-test-cannot-start"],
        capture_output=True,
        check=True,
    )
    assert listed.stdout == b""


@pytest.fixture
def docker() -> ContainerRuntime:
    try:
        return find_container_runtime("docker")
    except TunebuildError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture
def cleaned(docker: ContainerRuntime, image: Image) -> Iterator[None]:
    """No layer of the image stays in Docker, also not below one that lost its name to a newer one."""
    yield
    title = image.reference.repository.rpartition("/")[2]
    client = connect()
    for left in client.images.list(filters={"label": f"org.opencontainers.image.title={title}"}):
        client.images.remove(left.id, force=True)


@pytest.mark.runtime
@pytest.mark.usefixtures("cleaned")
def test_docker_is_sent_only_what_it_lacks(
    docker: ContainerRuntime, image: Image, inputs: ImageInputs
) -> None:
    assert docker.load(image).sent == image.size
    (inputs.bundle / "checks.jsonl").write_text("edited")
    edited = assemble(plan_image(inputs))
    report = docker.load(edited)
    assert report.sent == edited.layers[-1].size
    assert report.image_id == edited.config_digest
    assert dict(docker.files(image.reference, "opt/tunebuild/bundle"))["checks.jsonl"] == b"edited"


@pytest.mark.runtime
@pytest.mark.usefixtures("cleaned")
def test_docker_is_sent_everything_where_leaving_out_fails(
    docker: ContainerRuntime, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the layers were removed between asking and loading.
    monkeypatch.setattr(docker, "_known_layers", lambda layers: list(layers))
    report = docker.load(image)
    assert report.sent == image.size
    assert docker.image_id(image.reference) == image.config_digest


@pytest.mark.runtime
def test_an_archive_on_disk_loads_with_the_runtimes_own_command(
    runtime: ContainerRuntime, image: Image, tmp_path: Path
) -> None:
    write_archive(image, tmp_path / "image.tar")
    subprocess.run(
        [runtime.name, "load", "--input", tmp_path / "image.tar"], check=True, stdout=subprocess.PIPE
    )
    try:
        assert runtime.image_id(image.reference) == image.config_digest
        assert dict(runtime.files(image.reference, "etc"))["passwd"].startswith(b"nonroot")
    finally:
        runtime.remove(image.reference)


def test_without_a_runtime_the_error_says_what_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(TunebuildError) as caught:
        find_container_runtime()
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "no-runtime"
    assert "docker: it is not running" in diagnostic.message
    assert "podman: not installed" in diagnostic.message
    assert "\n" not in diagnostic.message
    assert "dockerd" in diagnostic.hint
    with pytest.raises(TunebuildError, match="no container runtime called 'lxc'"):
        find_container_runtime("lxc")


def test_variables_given_by_the_user_win() -> None:
    options = RunOptions(port=9000, env=(("TUNEBUILD_HOST", "0.0.0.0"),))
    assert options.variables == {"TUNEBUILD_HOST": "0.0.0.0", "TUNEBUILD_PORT": "9000"}


def test_an_archive_read_from_a_stream_is_the_archive_on_disk(image: Image) -> None:
    from tunebuild.containers.stream import archive_stream, files_in_stream
    from tunebuild.store import Silent

    data = b"".join(archive_stream(image, Silent()))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert len(tar.getnames()) == len(image.layers) + 5
    blocks = (data[i : i + 700] for i in range(0, len(data), 700))
    assert sum(len(content) for _, content in files_in_stream(blocks)) > image.size


def test_reference_with_a_registry_is_loaded_under_its_name(image: Image) -> None:
    named = replace(image, reference=ImageReference.parse("localhost:5000/team/demo"))
    assert named.reference.full_name == "localhost:5000/team/demo:latest"


@pytest.mark.runtime
def test_loading_says_which_image_had_the_name(
    runtime: ContainerRuntime, image: Image, inputs: ImageInputs
) -> None:
    first = runtime.load(image)
    try:
        assert runtime.load(image).replaced is None
        (inputs.bundle / "checks.jsonl").write_text("")
        edited = assemble(plan_image(inputs))
        assert runtime.load(edited).replaced == first.image_id
    finally:
        runtime.remove(image.reference)


@pytest.mark.runtime
def test_a_stored_image_is_loaded_like_the_built_one(
    runtime: ContainerRuntime, image: Image, tmp_path: Path
) -> None:
    write_archive(image, tmp_path / "image.tar")
    release, name = named_release_of(tmp_path / "image.tar")
    try:
        assert runtime.load(release.image(name)).image_id == runtime.load(image).image_id
    finally:
        runtime.remove(image.reference)


@pytest.mark.runtime
@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a GPU, so nothing is refused")
def test_gpus_without_the_container_toolkit_are_refused_with_what_to_install(
    runtime: ContainerRuntime, loaded: ImageReference
) -> None:
    with pytest.raises(TunebuildError, match="nvidia-ctk"):
        runtime.run(loaded, RunOptions(name=f"tunebuild-test-gpus-{os.getpid()}", gpus=True))
