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


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "faq.jsonl").write_text("mine")
    done = run("init", tmp_path)
    assert isinstance(done.exception, TunebuildError)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["faq.jsonl"]
    assert (tmp_path / "faq.jsonl").read_text() == "mine"
