"""A built spec into a registry: what ``build`` printed arrives, comes back the same, and runs as deployed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from support.containers import need_runtime
from support.quickstart import Quickstart, tunebuild
from support.registry import docker_registry, free_port
from tunebuild.client.conduct import Server, begin_answer, end_answer
from tunebuild.client.readiness import wait_until_ready


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Host and port."""
    with docker_registry(tmp_path_factory.mktemp("pushed") / "registry") as host:
        yield host


@pytest.fixture(scope="module")
def pushed(quickstart: Quickstart, registry: str) -> str:
    """The quickstart's name in the registry, which is in no spec."""
    name = f"{registry}/team/larder-desk"
    done = quickstart.run("push", f"{name}:v1", "--plain-http")
    assert done.code == 0, done.err
    assert done.out == f"{name}:v1@{quickstart.digest}\n"
    return name


@pytest.mark.slow
def test_a_spec_is_pushed_from_the_store_under_the_printed_digest(
    quickstart: Quickstart, pushed: str
) -> None:
    # skopeo reads the tag and checks every digest on its way.
    inspected = subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", f"docker://{pushed}:v1"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert inspected.stdout.strip() == quickstart.digest
    # From the registry back to the spec, over what was attached.
    verified = tunebuild("verify", f"{pushed}:v1", "--offline", "--plain-http")
    assert verified.code == 0, verified.err
    for said in ("SLSA provenance, unsigned", "CycloneDX", "attached", "faq.jsonl", "golden vectors"):
        assert said in verified.err
    again = quickstart.run("push", f"{pushed}:v2", "--plain-http")
    assert again.out == f"{pushed}:v2@{quickstart.digest}\n"
    assert "0.0 MB sent" in again.err


@pytest.mark.slow
@pytest.mark.runtime
def test_compose_runs_what_was_pushed_and_lets_it_drain(pushed: str, tmp_path: Path) -> None:
    """As written but for the network: Docker has no bridge here, so the container shares the host's."""
    need_runtime("docker")
    program = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
    if subprocess.run([*program, "version"], capture_output=True, check=False).returncode:
        assert not os.environ.get("CI"), "CI installs Compose"
        pytest.skip("Compose is not installed")
    done = tunebuild("deploy", f"{pushed}:v1", "--plain-http", "--to", "compose", "-o", tmp_path)
    assert done.code == 0, done.err
    file, keys, port = tmp_path / "compose.yaml", tmp_path / "api-keys.txt", free_port()
    value = yaml.safe_load(file.read_text())
    service = value["services"]["larder-desk"]
    del service["ports"]
    service["network_mode"] = "host"
    service["environment"] |= {"TUNEBUILD_HOST": "127.0.0.1", "TUNEBUILD_PORT": str(port)}
    file.write_text(yaml.safe_dump(value))
    keys.write_text("# of the test\nthe-key\n")
    os.chown(keys, 65532, -1)
    keys.chmod(0o400)
    compose = [*program, "-p", f"deployed-{uuid.uuid4().hex[:8]}", "-f", str(file)]
    url = f"http://127.0.0.1:{port}"

    def call(*words: str) -> str:
        return subprocess.run([*compose, *words], capture_output=True, text=True, check=True).stdout

    call("up", "-d")
    try:
        container = call("ps", "-q").strip()

        def state() -> dict[str, object]:
            shown = subprocess.run(["docker", "inspect", container], capture_output=True, check=True)
            return dict(json.loads(shown.stdout)[0]["State"])

        wait_until_ready(url, lambda: state()["Status"] == "running", 120, lambda: call("logs"))
        assert Server(url).ask("GET", "/v1/models")[0] == 401
        begun = begin_answer(Server(url, "the-key"), 32)
        call("stop")
        assert end_answer(*begun) == ""
        ended = state()
        assert (ended["Status"], ended["ExitCode"], ended["OOMKilled"]) == ("exited", 0, False)
    finally:
        call("down")
        subprocess.run(["docker", "rmi", service["image"]], capture_output=True, check=False)
