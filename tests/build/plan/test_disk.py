"""What a plan says that a build needs on disk is what it takes, and what is lacking is said."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support.models import save_base
from support.rows import write_rows
from tunebuild import resources
from tunebuild.build.pipeline import Pipeline
from tunebuild.build.plan import disk
from tunebuild.build.plan.make import make_plan
from tunebuild.build.plan.render import as_markdown, as_text
from tunebuild.spec import load_spec
from tunebuild.store import Silent, Store

SPEC = """\
apiVersion: tunebuild/v1
name: tiny
data: {train: [{path: rows.jsonl}], eval: {fraction: 0.5}}
model: {base: ./base}
prompt: {template: chatml}
tuning: {method: lora, lora: {r: 64}, batch_size: 4, max_length: 128, epochs: 4}
"""

# Looks at the disk whenever a checkpoint is about to be removed, and at the end.
SCRIPT = """
import sys
from pathlib import Path
from tunebuild.spec.tuning import TuningSpec
from tunebuild.store import Silent
from tunebuild.train.loop.run import train_adapter
from tunebuild.train.plan.settings import TrainSettings

root, most = Path(sys.argv[1]), 0
def look(event, arguments):
    global most
    if event in ("shutil.rmtree", "the end"):
        places = (root / "work", root / "out")
        most = max(most, sum(p.stat().st_size for place in places for p in place.rglob("*") if p.is_file()))

(root / "work").mkdir()
(root / "out").mkdir()
sys.addaudithook(look)
settings = TrainSettings(TuningSpec.model_validate_json(sys.argv[2]), "cpu", "float32")
train_adapter(settings, data=root / "rows", base=root / "base", work=root / "work", out=root / "out",
              progress=Silent())
look("the end", ())
print(most)
"""


@pytest.fixture
def pipeline(tmp_path):
    save_base("llama", tmp_path / "base")
    rows = (f'{{"question": "Why {n}?", "answer": "So."}}\n' for n in range(8))
    (tmp_path / "rows.jsonl").write_text("".join(rows))
    (tmp_path / "spec.yaml").write_text(SPEC)

    def made(*overrides):
        return Pipeline(load_spec(tmp_path / "spec.yaml", overrides), Store(tmp_path / "store"))

    return made


@pytest.mark.parametrize(
    "changes",
    [
        ("tuning.checkpoints=9", "tuning.method=full", "tuning.lora={}", "tuning.epochs=3"),
        # So slow that none is better than the first one.
        ("tuning.checkpoints=1", "tuning.keep=best", "tuning.learning_rate=1e-30"),
    ],
    ids=["all", "best-and-last"],
)
def test_checkpoints_take_what_the_plan_says(tmp_path, pipeline, changes):
    planned = pipeline(*changes)
    tuning = planned.spec.tuning
    write_rows(tmp_path / "base", tmp_path / "rows", held_out=True)
    argv = [sys.executable, "-c", SCRIPT, str(tmp_path), tuning.model_dump_json()]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    taken = int(done.stdout.split()[-1])
    assert taken == pytest.approx(disk.training_bytes(disk.trained_bytes(planned), tuning), rel=0.2)


def test_missing_disk_space_is_reported(tmp_path, pipeline):
    plan = make_plan(pipeline(), tmp_path / "dist" / "x.tar", lambda stage: Silent())
    needed = plan.disk.needed
    assert needed["merged weights"] == sum(
        p.stat().st_size for p in (tmp_path / "base").glob("*.safetensors")
    )
    assert max(needed.values()) < plan.disk.most < sum(needed.values())
    assert plan.disk.lacking == max(0, plan.disk.most - plan.disk.free)
    full = replace_disk(plan, lacking=3_000_000_000)
    assert "free: 3.0 GB too little; free some space, or take another --store\n" in as_text(full)
    assert "3.0 GB too little" in as_markdown(full)
    assert "too little" not in as_text(replace_disk(plan, lacking=0))


def test_a_plan_counts_the_base_with_new_tokens_and_does_not_write_it(tmp_path, pipeline):
    chatml = resources.path("templates", "prompts", "chatml.jinja").read_text()
    (tmp_path / "new.jinja").write_text(chatml.replace("<|im_start|>", "<|turn|>"))
    new = ("prompt.template={file: new.jinja}", "prompt.new_tokens=[<|turn|>]")

    def plan():
        return make_plan(pipeline(*new), tmp_path / "dist" / "x.tar", lambda stage: Silent())

    before = plan()
    weights = before.disk.needed["base with new tokens"]
    assert weights == before.disk.needed["merged weights"] > 0
    assert not list((tmp_path / "store").rglob("*.safetensors"))
    planned = pipeline(*new)
    key, outlined = planned.data().own(), planned.base.weight_digests
    tree = planned.store.ensure(planned.bases.stage, Silent())
    assert sum(f.size for f in tree.files if f.path.endswith(".safetensors")) == weights
    # What is behind it in the build reads the numbers; the rows do not, and are found as the plan left them.
    assert planned.base.directory == tree.root
    assert planned.base.weight_digests != outlined
    assert planned.data().own() == key
    after = plan()
    assert "base with new tokens" not in after.disk.needed
    assert before.disk.most - after.disk.most == weights
    assert {stage.name: stage.status for stage in after.stages}["data"] == "unchanged"


def replace_disk(plan, **changes):
    return plan.model_copy(update={"disk": plan.disk.model_copy(update=changes)})
