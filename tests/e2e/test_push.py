"""A built spec into a registry: what ``build`` printed arrives, and what comes back is the same image."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from support.quickstart import Quickstart, tunebuild
from support.registry import docker_registry


@pytest.mark.slow
def test_a_spec_is_pushed_from_the_store_under_the_printed_digest(
    quickstart: Quickstart, tmp_path: Path
) -> None:
    with docker_registry(tmp_path / "registry") as host:
        name = f"{host}/team/larder-desk"
        done = quickstart.run("push", f"{name}:v1", "--plain-http")
        assert done.code == 0, done.err
        assert done.out == f"{name}:v1@{quickstart.digest}\n"
        # skopeo reads the tag and checks every digest on its way.
        inspected = subprocess.run(
            ["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", f"docker://{name}:v1"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert inspected.stdout.strip() == quickstart.digest
        # From the registry back to the spec, over what was attached.
        verified = tunebuild("verify", f"{name}:v1", "--offline", "--plain-http")
        assert verified.code == 0, verified.err
        for said in ("SLSA provenance, unsigned", "CycloneDX", "attached", "faq.jsonl", "golden vectors"):
            assert said in verified.err
        again = quickstart.run("push", f"{name}:v2", "--plain-http")
        assert again.out == f"{name}:v2@{quickstart.digest}\n"
        assert "0.0 MB sent" in again.err
