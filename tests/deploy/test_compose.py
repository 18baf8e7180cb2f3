"""Compose files: valid by the specification, and as locked down as the pods."""

from __future__ import annotations

import shutil
import subprocess

import pytest
import yaml
from compose_spec import PyCompose
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from support.deployed import endpoint, endpoints, settings
from tunebuild.deploy.target import Choices, check_choices, name_of
from tunebuild.deploy.targets import TARGETS, render_manifest

COMPOSE = TARGETS["compose"]


def written(of, chosen):
    check_choices(chosen)
    return render_manifest(COMPOSE.manifest(of, chosen), of, chosen, "compose.yaml")


@hypothesis_settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(of=endpoints(), api_keys=st.booleans(), host=st.sampled_from(["", "0.0.0.0", "::1"]))
def test_files_are_valid_and_name_only_what_exists(of, api_keys, host):
    chosen = Choices(name_of(of.settings.name), api_keys=api_keys, host=host)
    text = written(of, chosen)
    PyCompose.from_yaml(text)
    value = yaml.safe_load(text)
    (service,) = value["services"].values()
    assert [one["source"] for one in service.get("secrets", ())] == list(value.get("secrets", ()))
    assert (service["read_only"], service["cap_drop"], service["user"]) == (True, ["ALL"], "65532:65532")
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["image"].endswith(f"@{of.digest}")
    assert service["ports"][0].endswith(f":{of.settings.port}:{of.settings.port}")
    assert int(service["stop_grace_period"].rstrip("s")) > of.settings.limits.drain_seconds
    assert ("deploy" in service) == (of.settings.device == "cuda")
    assert "$" not in text  # Compose would replace it


@pytest.mark.parametrize("bundle", [settings(), settings(device="cuda", engine="vllm")])
def test_compose_itself_takes_them(tmp_path, bundle):
    program = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
    if subprocess.run([*program, "version"], capture_output=True, check=False).returncode:
        pytest.skip("Compose is not installed")
    (tmp_path / "compose.yaml").write_text(written(endpoint(bundle), Choices("bot", host="0.0.0.0")))
    (tmp_path / "api-keys.txt").write_text("k")
    done = subprocess.run([*program, "config"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["services"]["bot"]["stop_grace_period"] == "50s"
