"""What Docker makes of the digest: it writes a manifest of its own, and keeps the image's ID."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from support.containers import need_runtime
from tunebuild.containers.docker_build import build_with_docker
from tunebuild.containers.runtime import ContainerRuntime
from tunebuild.image.oci.archive import write_archive
from tunebuild.image.oci.reference import ImageReference
from tunebuild.image.plan import ImageInputs, ImagePlan, assemble, plan_image
from tunebuild.registry import Options, Registries
from tunebuild.store import Digest

pytestmark = pytest.mark.runtime


@pytest.fixture
def docker(plan: ImagePlan) -> Iterator[ContainerRuntime]:
    runtime = need_runtime("docker")
    yield runtime
    runtime.remove(plan.reference)


@pytest.fixture
def plan(inputs: ImageInputs, registry: str) -> ImagePlan:
    reference = ImageReference.parse(f"{registry}/docker-paths:1")
    return plan_image(replace(inputs, reference=reference))


def _config_in_registry(plan: ImagePlan) -> tuple[Digest, Digest]:
    """The manifest's and the config's digest, once Docker has pushed the image."""
    subprocess.run(["docker", "push", "--quiet", str(plan.reference)], check=True, capture_output=True)
    repository = Registries(Options(plain_http=True)).repository(plan.reference.registry, plan.reference.path)
    found = repository.get_manifest(plan.reference.tag)
    assert found is not None
    return found.digest, found.json()["config"]["digest"]


def test_docker_load_and_push_keep_the_image_id_alone(
    plan: ImagePlan, docker: ContainerRuntime, tmp_path: Path
) -> None:
    image = assemble(plan)
    write_archive(image, tmp_path / "image.tar")
    subprocess.run(["docker", "load", "-i", tmp_path / "image.tar"], check=True, capture_output=True)
    assert docker.image_id(plan.reference) == image.config_digest
    manifest, config = _config_in_registry(plan)
    assert config == image.config_digest
    assert manifest != image.digest  # if this fails, docs/publish.md has good news to tell


def test_the_id_that_docker_builds_is_the_one_in_the_registry(
    plan: ImagePlan, docker: ContainerRuntime
) -> None:
    printed = build_with_docker(plan)
    assert docker.image_id(plan.reference) == printed
    assert _config_in_registry(plan)[1] == printed
