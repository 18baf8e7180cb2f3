"""A bundle is checked, and loaded, where there is no network at all."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from support.attested import Attested, make_attested
from support.containers import need_runtime
from support.images import save_real_prompt
from tunebuild.image.oci.archive import write_archive
from tunebuild.image.plan import ImageInputs, assemble, plan_image

_NOWHERE = ["unshare", "--net"]


@pytest.fixture
def made(inputs: ImageInputs, tmp_path: Path) -> Attested:
    save_real_prompt(inputs, tmp_path / "base")
    return make_attested(inputs)


@pytest.fixture
def bundle(made: Attested, tmp_path: Path) -> Path:
    if subprocess.run([*_NOWHERE, "true"], check=False, capture_output=True).returncode:
        pytest.skip("making a network namespace is not allowed")
    write_archive(made.outputs.image, tmp_path / "bundle.tar", others=made.others)
    public = made.signer.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (tmp_path / "key.pub").write_bytes(public)
    return tmp_path / "bundle.tar"


def _alone(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*_NOWHERE, sys.executable, "-m", "tunebuild", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_bundle_is_verified_without_a_network(bundle: Path, made: Attested) -> None:
    probe = "import socket; socket.create_connection(('127.0.0.1', 9), 1)"
    assert (
        "unreachable"
        in subprocess.run(
            [*_NOWHERE, sys.executable, "-c", probe], capture_output=True, text=True, check=False
        ).stderr
    )
    done = _alone("verify", bundle, "--offline", "--key", bundle.with_name("key.pub"))
    assert done.returncode == 0, done.stderr
    assert "of this digest, by the key" in done.stderr
    assert "golden vectors reproduce" in done.stderr


@pytest.mark.runtime
@pytest.mark.parametrize("name", ["docker", "podman"])
def test_a_bundle_is_loaded_without_a_network(
    bundle: Path, made: Attested, inputs: ImageInputs, name: str
) -> None:
    runtime, image = need_runtime(name), made.outputs.image
    try:
        done = _alone("load", bundle, "--runtime", name)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == image.config_digest
        assert runtime.image_id(image.reference) == image.config_digest
        again = _alone("load", bundle, "--runtime", name)
        assert "stood for" not in again.stderr
        # Another image takes the name, and that is said.
        edited = assemble(plan_image(replace(inputs, env=(("EDITED", "yes"),))))
        write_archive(edited, bundle.with_name("edited.tar"))
        replacing = _alone("load", bundle.with_name("edited.tar"), "--runtime", name)
        assert f"stood for {image.config_digest[:19]} before" in replacing.stderr
        assert runtime.image_id(image.reference) == edited.config_digest
    finally:
        runtime.remove(image.reference)
