"""A spec lives in a repository: its lock, its plan, and the documentation's walk-through as it stands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from support.quickstart import Quickstart, tunebuild
from tunebuild import resources
from tunebuild.image.oci.reading import open_archive

ROOT = Path(__file__).parents[2]


@pytest.fixture
def edited(quickstart, tmp_path):
    """A copy of the built quickstart to change, with the store that built it."""
    shutil.copytree(quickstart.spec.parent, tmp_path / "edited")
    return Quickstart(tmp_path / "edited" / "spec.yaml", quickstart.store, quickstart.digest, "")


def plan(built: Quickstart, *arguments: str) -> tuple[int, dict]:
    done = built.run("plan", "--json", *arguments)
    assert done.code in (0, 2), done.err
    value = json.loads(done.out)
    schema = json.loads(resources.path("schema", "tunebuild-plan-v1.schema.json").read_text())
    jsonschema.validate(value, schema)
    assert value["work"] == (done.code == 2)
    return done.code, value


def test_a_built_spec_has_nothing_to_do(quickstart, edited):
    code, found = plan(edited)
    assert code == 0
    assert {stage["status"] for stage in found["stages"]} == {"unchanged"}
    assert found["image"]["send"] == 0
    assert found["data"]["train"] == 320
    assert sum(bar["rows"] for bar in found["data"]["histogram"]) == 320
    assert f"{found['training']['steps']} steps in" in quickstart.err


def test_a_serving_edit_plans_kilobytes(edited):
    code, found = plan(edited, "--set", "serving.defaults.max_tokens=3", "--against", str(edited.archive))
    assert code == 2
    statuses = {stage["name"]: stage["status"] for stage in found["stages"]}
    assert [name for name, status in statuses.items() if status != "unchanged"] == ["image"]
    assert found["against"]["level"] == "serve only"
    changed = found["against"]["changes"]["image"]
    assert {"field": "settings.defaults.max_tokens", "old": 64, "new": 3} in changed
    assert [layer["status"] for layer in found["image"]["layers"][:3]] == ["reused"] * 3


def test_an_image_explains_itself(edited, tmp_path):
    done = tunebuild("explain", edited.archive, "--spec")
    assert done.code == 0, done.err
    again = edited.spec.with_name("again.yaml")
    again.write_text(done.out)
    assert tunebuild("render-spec", again).out == tunebuild("render-spec", edited.spec).out == done.out
    found = json.loads(tunebuild("explain", edited.archive, "--json").out)
    assert found["inputs"]["train"]["tuning"]["lora"]["r"] == 32
    assert "#   " in tunebuild("explain", edited.archive, "--full").out
    summary = tunebuild("explain", edited.archive).out.splitlines()
    assert len(summary) <= 18
    told = dict(re.findall(r"^(\w+) +(.+)$", line)[0] for line in summary if line[0] != " ")
    assert told["name"].startswith("larder-desk")
    assert told["digest"] == open_archive(edited.archive).digest
    assert "trained on" in told["rows"]
    assert "LoRA r 32" in told["training"]
    assert found["inputs"]["image"]["settings"]["prompt_digest"][:19] in told["prompt"]
    assert told["run"].startswith(f"docker load -i {edited.archive} && docker run --rm -p ")


def test_a_training_edit_names_the_field(edited):
    code, found = plan(edited, "--set", "tuning.learning_rate=1e-3", "--set", "tuning.epochs=2.5")
    assert code == 2
    train, merge = (next(s for s in found["stages"] if s["name"] == name) for name in ("train", "merge"))
    assert train["why"]["field"] in ("tuning.epochs", "tuning.learning_rate")
    assert merge["after"] == "train"
    assert found["training"]["steps"] == 50


def test_a_plan_counts_rejects_and_needs_no_card(edited):
    rows = edited.spec.parent / "faq.jsonl"
    long = json.dumps({"question": "word " * 300, "answer": "A."})
    rows.write_text(rows.read_text() + long + "\n")
    sets = ("--set", "data.on_long=drop")
    code, found = plan(edited, *sets, "--device", "cuda", "--device-memory", "1MB")
    assert code == 2
    assert found["data"]["rejected"] == {"too-long": 1}
    assert (found["training"]["device"], found["training"]["compute_dtype"]) == ("cuda", "bfloat16")
    assert found["memory"]["available"] == 1_000_000
    text = edited.run("plan", *sets, "--device-memory", "1MB")
    assert "more than there is" in text.out
    assert "1 rejected: too-long" in text.out


def test_the_disk_estimate_of_a_first_build_is_near_what_it_took(quickstart, tmp_path):
    found = plan(replace(quickstart, store=tmp_path / "empty"))[1]["disk"]
    archive = quickstart.archive.stat().st_size
    stored = sum(layer.size for layer in open_archive(quickstart.archive).layers)
    assert found["needed"]["archive"] == pytest.approx(archive, rel=0.2)
    assert found["most"] == pytest.approx(stored + archive, rel=0.2)


def test_the_memory_estimate_is_near_what_training_took(quickstart, tmp_path):
    """In a process of its own, as /proc counts it: the estimate is for planning, not for billing.

    Not getrusage's figure: that begins with the peak of the process that started this one.
    """
    found = plan(quickstart)[1]["memory"]
    script = (
        "import sys; from tunebuild.cli import app;"
        "app(sys.argv[1:], standalone_mode=False);"
        "status = open('/proc/self/status').read();"
        "print(int(status.partition('VmHWM:')[2].split()[0]) * 1024, file=sys.stderr)"
    )
    argv = [sys.executable, "-c", script, "build", quickstart.spec, "--store", quickstart.store]
    argv += ["--set", "tuning.epochs=0.1", "-o", tmp_path / "x.tar"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    measured = int(done.stderr.splitlines()[-1])
    assert 0.5 < found["total"] / measured < 1.5, (found, measured)


def test_a_lock_is_kept_and_drift_is_refused(edited):
    lock = edited.spec.with_suffix(".lock")
    refused = edited.run("build", "--locked")
    assert refused.code == 1
    assert "there is no" in refused.err
    assert edited.run("lock").code == 0
    first = lock.read_text()
    assert edited.run("lock").err.strip().endswith("nothing has changed")
    built = edited.run("build", "--locked")
    assert built.code == 0, built.err
    assert re.search(r"runtime\s+unchanged", built.err)  # what was just locked is what is in the store
    held_out = edited.spec.parent / "held_out.jsonl"
    held_out.write_text(held_out.read_text() + "\n")
    for verb in (("build", "--locked"), ("lock", "--check")):
        done = edited.run(*verb)
        assert done.code == 1
        assert "~ files.held_out.jsonl" in done.err
    tags = edited.run("build", "--locked", "--set", "model.base=./elsewhere")
    assert tags.code == 1
    assert lock.read_text() == first
    unlocked = edited.run("build")
    assert unlocked.code == 0
    assert "is behind (files.held_out.jsonl)" in unlocked.err


def test_the_walk_through_works_as_written(quickstart, tmp_path):
    page = (ROOT / "docs" / "gitops.md").read_text()
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TUNEBUILD_STORE": str(quickstart.store),
        "TMPDIR": str(tmp_path),
        "GIT_CONFIG_GLOBAL": "/dev/null",
    }
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]


def test_an_overlay_builds_the_same_image(quickstart, tmp_path):
    shutil.copytree(quickstart.spec.parent, tmp_path / "two")
    spec = tmp_path / "two" / "spec.yaml"
    spec.rename(tmp_path / "two" / "base.yaml")
    spec.write_text("extends: base.yaml\n")
    done = tunebuild("build", spec, "--store", quickstart.store)
    assert done.code == 0, done.err
    assert done.out.strip() == quickstart.digest
