"""The two back ends give one tree and one way to run it."""

import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tunebuild.containers.docker_build import build_with_docker
from tunebuild.containers.stream import archive_stream
from tunebuild.errors import TunebuildError
from tunebuild.image.context import build_context, context_stream, render_context
from tunebuild.image.oci.layer import Entry, FilesLayer, Symlink
from tunebuild.image.oci.reference import ImageReference
from tunebuild.image.plan import ImageInputs, ImagePlan, assemble, plan_image
from tunebuild.store import Silent

_AWKWARD = (("QUOTES", 'a "b" $HOME ${X:-y} \\ \\n `c` #d'), ("EMPTY", ""), ("SPACE", " x "))


@dataclass(frozen=True)
class _Path:
    """What must be equal: type, mode, owner, link target and content."""

    kind: bytes
    mode: int
    owner: tuple[int, int]
    target: str
    content: str


def _tree(client: Any, reference: ImageReference) -> dict[str, _Path]:
    container = client.containers.create(str(reference), network_mode="none")
    try:
        data = b"".join(container.export())
    finally:
        container.remove()
    tree = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for m in tar:
            content = tar.extractfile(m).read() if m.isfile() else b""  # type: ignore[union-attr]
            digest = hashlib.sha256(content).hexdigest()
            tree[m.name.rstrip("/")] = _Path(m.type, m.mode & 0o7777, (m.uid, m.gid), m.linkname, digest)
    return tree


@pytest.fixture
def plan(inputs: ImageInputs) -> ImagePlan:
    plan = plan_image(replace(inputs, env=_AWKWARD, labels=(("note", 'say "$5"'),)))
    entries = (
        Entry("srv/empty", None, 0o755),
        Entry("srv/link", Symlink("../etc")),
        Entry("srv/run", b"#!", 0o755),
    )
    extra = FilesLayer("extra", "links and empty directories", entries)
    return replace(plan, layers=(*plan.layers, extra))


@pytest.fixture
def client() -> Iterator[Any]:
    from tunebuild.containers.docker import connect

    try:
        client = connect()
    except TunebuildError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    yield client
    for name in ("assembled", "built", "by-hand"):
        for image in client.images.list(name=f"tunebuild-test/{name}"):
            client.images.remove(image.id, force=True)


@pytest.mark.runtime
def test_both_back_ends_give_the_same_tree_and_config(plan: ImagePlan, client: Any, tmp_path: Path) -> None:
    names = [ImageReference.parse(f"tunebuild-test/{n}:1") for n in ("assembled", "built", "by-hand")]
    client.images.load(archive_stream(assemble(replace(plan, reference=names[0])), Silent()))
    build_with_docker(replace(plan, reference=names[1]))
    # What a user does with the rendered directory, under a careless umask.
    before = os.umask(0o077)
    try:
        render_context(replace(plan, reference=names[2]), tmp_path / "context")
    finally:
        os.umask(before)
    subprocess.run(
        ["docker", "build", "--quiet", "--tag", str(names[2]), tmp_path / "context"],
        check=True,
        capture_output=True,
        env={**os.environ, "DOCKER_BUILDKIT": "0"},
    )
    trees = [_tree(client, name) for name in names]
    assert trees[0] == trees[1]
    assert trees[0] == trees[2]
    assert "models/model-00001-of-00002.safetensors" in trees[0]
    assert trees[0]["tmp"].mode == 0o1777
    configs = [client.images.get(str(name)).attrs["Config"] for name in names]
    keys = "User Env Entrypoint Cmd Healthcheck ExposedPorts WorkingDir Labels StopSignal"
    for key in keys.split():
        assert configs[0].get(key) == configs[1].get(key) == configs[2].get(key), key
    assert dict(e.split("=", 1) for e in configs[1]["Env"])["QUOTES"] == dict(_AWKWARD)["QUOTES"]


@pytest.mark.runtime
def test_what_docker_says_when_a_build_fails(plan: ImagePlan, client: Any) -> None:
    broken = replace(plan, layers=(FilesLayer("x", "x", ()), *plan.layers))  # COPY of nothing
    with pytest.raises(TunebuildError, match="docker did not build") as caught:
        build_with_docker(broken)
    assert caught.value.diagnostics[0].code == "docker-build-failed"


def test_the_context_runs_nothing_and_reaches_nowhere(plan: ImagePlan) -> None:
    dockerfile = build_context(plan)[0]
    assert isinstance(dockerfile.content, tuple)
    (text,) = dockerfile.content
    assert isinstance(text, bytes)
    steps = [line.split()[0] for line in text.decode().splitlines() if line and line[0] not in "# "]
    assert steps.count("FROM") == 1
    assert b"FROM scratch\n" in text
    assert "RUN" not in steps
    assert b"http" not in text


def test_context_on_disk_and_in_the_stream_are_the_same(plan: ImagePlan, tmp_path: Path) -> None:
    render_context(plan, tmp_path / "context")
    streamed = b"".join(context_stream(build_context(plan), Silent()))
    with tarfile.open(fileobj=io.BytesIO(streamed)) as tar:
        for member in tar:
            path = tmp_path / "context" / member.name
            assert path.is_symlink() == member.issym()
            if member.isfile():
                assert path.read_bytes() == tar.extractfile(member).read()  # type: ignore[union-attr]
                assert path.stat().st_mode & 0o777 == member.mode
        count = len(tar.getnames())
    assert count == len(list((tmp_path / "context").rglob("*")))


def test_rendering_again_replaces_and_spares_strangers(plan: ImagePlan, tmp_path: Path) -> None:
    target = tmp_path / "context"
    render_context(plan, target)
    (target / "stale").write_text("x")
    render_context(plan, target)
    assert not (target / "stale").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "Dockerfile").write_text("FROM mine\n")
    with pytest.raises(TunebuildError, match="holds something else"):
        render_context(plan, tmp_path / "mine")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["context", "in", "mine"]


def test_exec_forms_are_json(plan: ImagePlan) -> None:
    (text,) = build_context(plan)[0].content  # type: ignore[misc]
    lines = text.decode().splitlines()
    assert json.loads(next(line for line in lines if line.startswith("ENTRYPOINT")).partition(" ")[2])
    assert json.loads(next(line for line in lines if line.startswith("  CMD")).strip().partition(" ")[2])
