"""The adapter stays beside its base: in a container of its own layers, and measured as it is served."""

from __future__ import annotations

import json
import re

import pytest

from support.containers import need_runtime
from support.quickstart import tunebuild
from tunebuild.image.oci.integrity import check_image
from tunebuild.image.oci.reading import open_archive

QUESTION = "How do I set up Larder for the first time?"
APART = ("--set", "merge.strategy=none")


@pytest.fixture(scope="module")
def archives(quickstart, tmp_path_factory):
    """Images of two adapters of one base; the second hardly trained, so its limits are off."""
    root = tmp_path_factory.mktemp("apart")
    brief = ("--set", "tuning.epochs=1", "--set", "gates={merge_kl: null, merge_lost: null}")
    found = []
    for name, more in (("one", ()), ("two", (*brief, "--set", "evaluation.samples=0"))):
        done = quickstart.run("build", *APART, *more, "-o", root / f"{name}.tar")
        assert done.code == 0, done.err
        found.append((root / f"{name}.tar", done.err))
    return found


def test_two_adapters_share_all_layers_but_their_own(quickstart, archives):
    (first, log), (second, again) = archives
    assert re.search(r"train\s+unchanged", log)
    assert re.search(r"base and adapter against trained on 64 held-out rows: KL", log)
    for stage in ("merge", "weights", "runtime"):
        assert re.search(rf"{stage}\s+unchanged", again), again
    one, two, merged = (open_archive(path) for path in (first, second, quickstart.archive))
    assert len(one.layers) == len(two.layers) == 9
    same = [a.digest == b.digest for a, b in zip(one.layers, two.layers, strict=True)]
    assert same == [True] * 7 + [False, False]
    assert [x.digest for x in one.layers[:3]] == [x.digest for x in merged.layers[:3]]
    assert one.layers[7].size < 2_000_000


def test_the_weights_are_the_bases_own(quickstart, archives, tmp_path):
    image = open_archive(archives[0][0])
    check_image(image)
    image.extract("opt/tunebuild/bundle", tmp_path)
    (ours,) = (tmp_path / "model").glob("*.safetensors")
    assert _tensors(ours) == _tensors(quickstart.spec.parent / "base" / "model.safetensors")
    assert json.loads((tmp_path / "bundle.json").read_text())["adapter"] is True


def _tensors(path):
    """Type, shape and bytes of each tensor."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    return {
        name: (e["dtype"], e["shape"], data[start + e["data_offsets"][0] : start + e["data_offsets"][1]])
        for name, e in header.items()
    }


@pytest.mark.runtime
def test_the_container_answers_word_for_word(quickstart, archives):
    need_runtime("docker")
    done = quickstart.run("run", *APART, "--runtime", "docker", "--port", 0, "--ask", QUESTION)
    assert done.code == 0, done.err
    rows = map(json.loads, (quickstart.spec.parent / "faq.jsonl").read_text().splitlines())
    assert done.out.strip() == next(r["answer"] for r in rows if r["question"] == QUESTION)


def test_plan_and_explain_know_of_it(quickstart, archives):
    plan = quickstart.run("plan", *APART)
    assert plan.code == 0, plan.out
    new = ("peft", "weights 1/1", "model files", "adapter", "app")
    assert all(re.search(rf"^ *\+ {name} ", plan.out, re.MULTILINE) for name in new), plan.out
    assert re.search(r"^ *= packages ", plan.out, re.MULTILINE)
    told = tunebuild("explain", archives[0][0], "--card")
    assert "belongs on top" in told.out
