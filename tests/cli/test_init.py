"""What ``init`` writes is a spec that validates."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from support.models import save_base
from tunebuild.cli import app
from tunebuild.errors import TunebuildError
from tunebuild.spec import load_spec
from tunebuild.spec.yaml_loader import load_yaml


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)), standalone_mode=False)


@pytest.mark.parametrize("name", ["support", "Support Desk!", "2nd_try", "---"])
def test_init_writes_a_valid_spec(tmp_path, name):
    directory = tmp_path / name
    assert run("init", directory).exception is None
    loaded = load_spec(directory / "spec.yaml")
    assert loaded.spec.model.revision == "main"
    assert load_yaml(directory / ".github" / "workflows" / "spec.yml").value["jobs"]


def test_a_local_base_needs_no_revision(tmp_path):
    (tmp_path / "x" / "base").mkdir(parents=True)
    (tmp_path / "x" / "base" / "config.json").write_text("{}")
    assert run("init", tmp_path / "x", "--base", "./base").exception is None
    assert load_spec(tmp_path / "x" / "spec.yaml").spec.model.revision is None


@pytest.mark.parametrize("positions", [256, 4096])
def test_the_first_plan_fits_whatever_base(tmp_path, positions):
    save_base("llama", tmp_path / "x" / "base", max_position_embeddings=positions)
    assert run("init", tmp_path / "x", "--base", "./base").exception is None
    done = run("plan", tmp_path / "x" / "spec.yaml", "--store", tmp_path / "store")
    assert done.exception.exit_code == 2, done.exception  # there is work, and nothing wrong
    assert f"context of {min(positions, 2048):,} tokens" in done.stdout


@pytest.mark.parametrize(("target", "runner"), [("cpu", "ubuntu-latest"), ("gpu", ["self-hosted", "gpu"])])
def test_the_job_plans_anywhere_and_builds_where_training_can_run(tmp_path, target, runner):
    assert run("init", tmp_path, "--for", target).exception is None
    assert load_spec(tmp_path / "spec.yaml").spec.serving.device == {"cpu": "cpu", "gpu": "cuda"}[target]
    job = (tmp_path / ".github" / "workflows" / "spec.yml").read_text()
    jobs = load_yaml(tmp_path / ".github" / "workflows" / "spec.yml").value["jobs"]
    assert jobs["plan"]["runs-on"] == "ubuntu-latest"
    assert "tunebuild[plan]" in str(jobs["plan"])
    assert jobs["build"]["runs-on"] == runner
    assert jobs["build"]["needs"] == "plan"
    (tmp_path / ".github" / "workflows" / "spec.yml").unlink()
    assert run("init", tmp_path, "--for", "ci").exception is None
    assert (tmp_path / ".github" / "workflows" / "spec.yml").read_text() == job


def test_a_job_installs_from_where_this_one_came_from(tmp_path, monkeypatch):
    monkeypatch.setattr("tunebuild.cli.init.address", lambda: "git+https://git.example.com/t@v1")
    done = run("init", tmp_path)
    assert "set TUNEBUILD" not in done.stderr
    job = load_yaml(tmp_path / ".github" / "workflows" / "spec.yml").value
    assert job["env"]["TUNEBUILD"] == "git+https://git.example.com/t@v1"


def test_a_job_alone_is_for_a_spec_that_is_there(tmp_path):
    assert "there is no" in str(run("init", tmp_path, "--for", "ci").exception)


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "faq.jsonl").write_text("mine")
    done = run("init", tmp_path)
    assert isinstance(done.exception, TunebuildError)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["faq.jsonl"]
    assert (tmp_path / "faq.jsonl").read_text() == "mine"
