"""A spec is compared with what a revision named, whatever the working tree holds; and in words."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.models import save_base
from tunebuild import resources
from tunebuild.build.pipeline import Pipeline
from tunebuild.build.plan.against import compare
from tunebuild.build.plan.words import changed_rows
from tunebuild.errors import TunebuildError
from tunebuild.spec import load_spec
from tunebuild.store import Store

SPEC = """\
apiVersion: tunebuild/v1
name: tiny
data: {train: [{path: rows/*.jsonl, format: qa}]}
model: {base: ./base}
prompt: {template: {file: chat.jinja}, system: Be brief.}
tuning: {method: lora, max_length: 64}
"""


def rows(*answers: str) -> str:
    return "".join(
        json.dumps({"question": f"Question {n}?", "answer": a}) + "\n" for n, a in enumerate(answers)
    )


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """A repository with one commit, of which the base model is no part."""
    top = tmp_path_factory.mktemp("repository")
    here = top / "bots" / "support"
    (here / "rows").mkdir(parents=True)
    save_base("llama", here / "base")
    (top / ".gitignore").write_text("base/\n")
    (here / "spec.yaml").write_text(SPEC)
    (here / "rows" / "a.jsonl").write_text(rows("A.", "B.", "C."))
    (here / "rows" / "b.jsonl").write_text(rows("D."))
    shutil.copyfile(resources.path("templates", "prompts", "chatml.jinja"), here / "chat.jinja")
    git(top, "init", "--quiet", "--initial-branch", "main")
    git(top, "add", ".")
    git(top, "commit", "--quiet", "-m", "first")
    return top, Store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def repository(committed, tmp_path):
    top = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", committed[0], top)
    here = top / "bots" / "support"
    (here / "base").symlink_to(committed[0] / "bots" / "support" / "base", target_is_directory=True)

    def compared(against="git:HEAD"):
        def pipeline(file):
            return Pipeline(load_spec(file), committed[1])

        return compare(against, pipeline(here / "spec.yaml"), pipeline)

    return top, here, compared


def git(folder, *arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    subprocess.run(["git", *who, *map(str, arguments)], cwd=folder, check=True)


def edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_nothing_changed_is_nothing(repository):
    found = repository[2]()
    assert (found.level, found.words) == ("nothing", ())


def test_rows_are_compared_with_those_of_the_revision(repository):
    _, here, compared = repository
    (here / "rows" / "a.jsonl").write_text(rows("A.", "Bee.", "Cee.", "E."))
    found = compared()
    assert found.level == "retrain"
    assert found.words == ("rows/a.jsonl: 1 row added, 2 changed; retrains",)


def test_files_that_come_and_go_are_named(repository):
    _, here, compared = repository
    (here / "rows" / "a.jsonl").rename(here / "rows" / "z.jsonl")
    (here / "rows" / "b.jsonl").unlink()
    (here / "rows" / "c.jsonl").write_text(rows("X.", "Y."))
    assert compared().words == (
        "rows/c.jsonl: new, 2 rows; retrains",
        "rows/z.jsonl: was called rows/a.jsonl; nothing follows",
        "rows/b.jsonl: no longer used; retrains",
    )


def test_prompts_and_settings_are_told_with_what_follows(repository):
    _, here, compared = repository
    edit(here / "spec.yaml", "Be brief.", "Be kind.")
    assert compared().words == ("system prompt: Be brief. -> Be kind.; retrains",)
    edit(here / "spec.yaml", "Be kind.", "Be brief.")
    edit(here / "spec.yaml", "max_length: 64}", "max_length: 64, checkpoints: 5}")
    (here / "spec.yaml").write_text((here / "spec.yaml").read_text() + "serving: {limits: {queue: 9}}\n")
    found = compared()
    assert found.level == "serve only"
    assert found.words == (
        "serving.limits.queue: 64 -> 9; no training",
        "tuning.checkpoints: 2 -> 5; nothing follows",
    )
    edit(here / "chat.jinja", "ChatML.", "Ours.")
    assert "chat.jinja: the prompt template has changed; retrains" in compared().words


def test_any_revision_can_be_named_and_its_own_spec_counts(repository):
    top, here, compared = repository
    edit(here / "spec.yaml", "rows/*.jsonl", "rows/a.jsonl")
    git(top, "rm", "--quiet", "--cached", here / "rows" / "b.jsonl")
    git(top, "commit", "--quiet", "-am", "second")
    (here / "rows" / "b.jsonl").unlink()
    assert compared("git:HEAD").words == ()
    assert "rows/b.jsonl: no longer used; retrains" in compared("git:HEAD~1").words
    assert "rows/b.jsonl: no longer used; retrains" in compared("git:origin/main").words
    assert not list((top / ".git").glob("tunebuild-*"))


@pytest.mark.parametrize("revision", ["nowhere", "--help", "HEAD~7"])
def test_what_is_no_revision_is_told(repository, revision):
    with pytest.raises(TunebuildError, match=r"there is no revision"):
        repository[2](f"git:{revision}")


def test_a_mistake_of_the_revision_is_placed_in_it(repository):
    top, here, compared = repository
    edit(here / "spec.yaml", "name: tiny", "nane: tiny")
    git(top, "commit", "--quiet", "-am", "typo")
    edit(here / "spec.yaml", "nane: tiny", "name: tiny")
    with pytest.raises(TunebuildError, match=r"git:HEAD:bots/support/spec\.yaml:2:1 nane: unknown key"):
        compared()


def test_outside_a_repository_is_told(tmp_path, committed):
    shutil.copytree(committed[0] / "bots" / "support", tmp_path / "s")
    pipeline = Pipeline(load_spec(tmp_path / "s" / "spec.yaml"), committed[1])
    with pytest.raises(TunebuildError, match="not a git repository"):
        compare("git:HEAD", pipeline, lambda file: pipeline)


@given(st.lists(st.sampled_from("abcdef")), st.lists(st.sampled_from("abcdef")))
def test_counts_of_rows_add_up(before, after):
    said = changed_rows(before, after)
    counts = {"added": 0, "changed": 0, "removed": 0}
    for part in said.split(", ") if said and "order" not in said else ():
        words = part.split()
        counts[words[-1]] = int(words[0])
    assert counts["added"] - counts["removed"] == len(after) - len(before)
    assert (said == "") == (before == after)
    assert ("order" in said) == (before != after and sorted(before) == sorted(after))
