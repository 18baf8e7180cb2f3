"""Overlays share one lock: locked together, checked together, found from each of them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from support.hub import Hub
from support.locks import DIGESTS, a_runtime
from support.models import save_base
from support.quickstart import tunebuild_here
from tunebuild import resources
from tunebuild.errors import TunebuildError
from tunebuild.lock.find import find_lock
from tunebuild.spec import load_spec

ROW = '{"question": "Q?", "answer": "A."}\n'
BASE = """\
apiVersion: tunebuild/v1
name: desk
data: {train: [{path: faq.jsonl}]}
model: {base: ./base}
prompt: {template: {file: prompt.jinja}}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_base("llama", tmp_path_factory.mktemp("model") / "base")


@pytest.fixture
def space(tmp_path, model, monkeypatch, capsys):
    """A base and two overlays, whose runtime is made up; runs verbs on them."""
    asked = []

    def resolve(pipeline, old, free, reporter):
        asked.append((pipeline.spec.name, old, free))
        wanted = pipeline.wanted_runtime
        moved = {"wheels": {"torch": f"2.14.0 {DIGESTS[2]}"}} if "torch" in free else {}
        kept = {"packages": old.packages, "wheels": old.wheels} if old else {}
        return a_runtime(
            device=wanted.device,
            platform=wanted.platform,
            requirements=wanted.requirements,
            **{**kept, **moved},
        )

    monkeypatch.setattr("tunebuild.build.lock._runtime", resolve)
    monkeypatch.chdir(tmp_path)
    Path("base").symlink_to(model, target_is_directory=True)
    Path("faq.jsonl").write_text(ROW)
    Path("prompt.jinja").write_bytes(resources.path("templates", "prompts", "chatml.jinja").read_bytes())
    Path("base.yaml").write_text(BASE)
    Path("overlays").mkdir()
    for name in ("eu", "us"):
        Path(f"overlays/{name}.yaml").write_text(
            f"apiVersion: tunebuild/v1\nextends: ../base.yaml\nname: desk-{name}\n"
        )

    def run(*arguments):
        return tunebuild_here(capsys, *arguments, "--store", tmp_path / "store")

    run.asked = asked
    return run


BOTH = ("overlays/eu.yaml", "overlays/us.yaml")


def test_one_lock_beside_the_common_base_and_each_overlay_finds_it(space):
    assert space("lock", *BOTH).code == 0
    assert not list(Path("overlays").glob("*.lock"))
    text = Path("tunebuild.lock").read_text()
    assert [name for name, _, _ in space.asked] == ["desk-eu"]  # of equal runtimes one is resolved
    for overlay in BOTH:
        found = find_lock(load_spec(Path(overlay)))
        assert found.path == Path("tunebuild.lock")
        assert found.lock.files.keys() == {"../faq.jsonl"}
        assert found.lock.template.keys() == {"../prompt.jinja"}
        assert space("lock", overlay, "--check").err == "tunebuild.lock: up to date\n"
    again = space("lock", *reversed(BOTH))
    assert (again.code, again.err) == (0, "tunebuild.lock: nothing has changed\n")
    assert space("lock", "overlays/us.yaml").code == 0
    assert Path("tunebuild.lock").read_text() == text


def test_a_field_that_differs_is_refused_in_words(space):
    space("lock", *BOTH)
    done = space("build", BOTH[0], "--locked", "--set", "tuning.epochs=5")
    assert done.code == 1
    assert "tuning.epochs: 3 -> 5; the lock was made with 3\n" in done.err
    Path(BOTH[0]).write_text(Path(BOTH[0]).read_text() + "# a comment\ndescription: ''\n")
    assert space("lock", *BOTH, "--check").code == 0  # it says nothing new
    Path("base.yaml").write_text(BASE + "description: Other.\n")
    done = space("lock", "--lock", "tunebuild.lock", "--check")
    assert done.code == 1
    assert done.err.count("description: '' -> Other.") == 1  # that of eu is its own
    assert "from overlays/us.yaml" in done.err


def test_what_was_set_is_locked(space):
    assert space("lock", "base.yaml", "--set", "tuning.epochs=5").code == 0
    assert space("lock", "base.yaml", "--check", "--set", "tuning.epochs=5").code == 0
    done = space("lock", "base.yaml", "--check")
    assert "tuning.epochs: 5 -> 3; the lock was made with 5" in done.err


def test_a_check_of_one_covers_all_that_its_lock_names(space):
    space("lock", *BOTH)
    Path(BOTH[1]).write_text(Path(BOTH[1]).read_text() + "tuning: {seed: 7}\n")
    done = space("lock", BOTH[0], "--check")
    assert done.code == 1
    assert "tuning.seed: 0 -> 7" in done.err
    Path(BOTH[1]).unlink()
    assert "names overlays/us.yaml, which is not there" in space("lock", BOTH[0], "--check").err
    done = space("lock", BOTH[0])
    assert "- overlays/us.yaml" in done.err
    assert list(json.loads(Path("tunebuild.lock").read_text())["specs"]) == [BOTH[0]]


def test_a_spec_that_comes_later_joins(space):
    space("lock", *BOTH)
    Path("overlays/uk.yaml").write_text(Path(BOTH[0]).read_text().replace("-eu", "-uk"))
    done = space("build", "overlays/uk.yaml", "--locked")
    assert "tunebuild.lock does not name overlays/uk.yaml; add it with" in done.err
    before = Path("tunebuild.lock").read_text()
    done = space("lock", "overlays/uk.yaml")
    assert "+ overlays/uk.yaml" in done.err
    after = Path("tunebuild.lock").read_text()
    assert set(before.splitlines()) - set(after.splitlines()) == set()
    assert after.count(DIGESTS[1]) == before.count(DIGESTS[1])
    assert not Path("overlays/uk.lock").exists()


def test_an_update_moves_a_pin_of_all(space):
    space("lock", *BOTH)
    before = Path("tunebuild.lock").read_text().splitlines()
    done = space("lock", BOTH[0], "--update", "torch")
    assert f"~ wheels.torch 2.13.0 {'b' * 12} -> 2.14.0 {'c' * 12}" in done.err
    assert Path("tunebuild.lock").read_text() != before
    for overlay in BOTH:
        assert find_lock(load_spec(Path(overlay))).lock.runtime.wheels == {"torch": f"2.14.0 {DIGESTS[2]}"}
    assert "the lock has no 'torhc'" in space("lock", BOTH[0], "--update", "torhc").err


def test_a_model_on_a_hub_is_resolved_once_for_all_and_kept(space, model, monkeypatch):
    hub = Hub()
    files = {file.name: file.read_bytes() for file in model.iterdir() if file.is_file()}
    with hub.running():
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        # With this method a build counts the model's parameters; a lock need not fetch it for that.
        auto = BASE.replace("./base", "org/tiny, revision: main") + "tuning: {method: auto}\n"
        Path("base.yaml").write_text(auto)
        first = hub.commit(files, "main")
        assert space("lock", *BOTH).code == 0
        assert not [path for method, path, _ in hub.asked if method == "GET" and "safetensors" in path]
        asked = len(hub.asked)
        second = hub.commit({**files, "README.md": b"# New"}, "main")
        assert space("lock", *BOTH).err == "tunebuild.lock: nothing has changed\n"
        assert len(hub.asked) == asked
        assert space("lock", BOTH[0], "--update", "model").code == 0
    commits = [find_lock(load_spec(Path(overlay))).lock.model.commit for overlay in BOTH]
    assert (first, [second] * 2) == (first, commits) != (second, commits)
    assert Path("tunebuild.lock").read_text().count(second) == 1


def test_a_lock_elsewhere_is_used_where_it_is_named(space):
    Path("ci").mkdir()
    assert space("lock", *BOTH, "-o", "ci/all.lock").code == 0
    assert space("lock", *BOTH, "--lock", "ci/all.lock", "--check").code == 0
    assert "there is no overlays/eu.lock" in space("build", BOTH[0], "--locked").err
    done = space("build", BOTH[0], "--locked", "--lock", "ci/all.lock", "--set", "tuning.seed=1")
    assert "ci/all.lock does not say what would be built from overlays/eu.yaml:\n  tuning.seed" in done.err
    assert "there is no ci/none.lock" in space("build", BOTH[0], "--lock", "ci/none.lock").err
    assert space("lock", "--lock", "ci/all.lock").err == "ci/all.lock: nothing has changed\n"


@pytest.mark.parametrize("place", [(), ("--lock", "ci/all.lock")])
def test_a_revision_is_compared_by_the_lock_that_it_had(space, place):
    Path("ci").mkdir()
    Path(".gitignore").write_text("base\nstore\n")
    space("lock", *BOTH, *place)
    git = ("git", "-c", "user.name=x", "-c", "user.email=x@example.com")
    for command in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "-m", "first")):
        subprocess.run([*git, *command], check=True)
    space("lock", *BOTH, *place, "--update", "torch")
    done = space("plan", BOTH[0], *place, "--against", "git:HEAD", "--json")
    assert done.code == 2, done.err
    plan = json.loads(done.out)
    assert plan["lock"] == "matches"
    assert "torch: 2.13.0 -> 2.14.0; other packages" in plan["against"]["words"]


def test_pins_of_locks_of_single_specs_are_kept_and_two_locks_are_refused(space):
    for overlay in BOTH:
        assert space("lock", overlay).code == 0
    assert sorted(path.name for path in Path("overlays").glob("*.lock")) == ["eu.lock", "us.lock"]
    assert space("lock", *BOTH, "--check").code == 0
    own = json.loads(Path("overlays/eu.lock").read_text())
    own["wheels"]["torch"] = f"2.11.0 {DIGESTS[5]}"
    Path("overlays/eu.lock").write_text(json.dumps(own))
    done = space("lock", *BOTH)
    assert "overlays/eu.lock is no longer needed: remove it" in done.err
    assert json.loads(Path("tunebuild.lock").read_text())["wheels"]["torch"] == f"2.11.0 {DIGESTS[5]}"
    done = space("build", BOTH[0])
    assert (
        "overlays/eu.lock and tunebuild.lock both lock overlays/eu.yaml; remove overlays/eu.lock" in done.err
    )


def test_a_lock_of_the_first_format_keeps_its_pins_but_says_nothing_of_the_spec(space):
    space("lock", "base.yaml")
    lock = find_lock(load_spec(Path("base.yaml"))).lock
    runtime = lock.runtime.model_copy(update={"wheels": {"torch": f"2.11.0 {DIGESTS[5]}"}})
    first = lock.model_copy(update={"runtime": runtime}).model_dump(mode="json", exclude={"spec"})
    Path("base.lock").write_text(json.dumps({"lockVersion": 1, **first}))
    for verb in (("build", "base.yaml", "--locked"), ("lock", "base.yaml", "--check")):
        done = space(*verb)
        assert done.code == 1
        assert "has an older format, which does not record the spec's fields; run 'tunebuild lock" in done.err
    assert find_lock(load_spec(Path("base.yaml"))).lock.runtime == runtime
    assert space("lock", "base.yaml").code == 0
    assert space("lock", "base.yaml", "--check").code == 0
    assert find_lock(load_spec(Path("base.yaml"))).lock.runtime == runtime


def test_a_lock_for_another_device_is_resolved_anew(space):
    space("lock", "base.yaml")
    space("lock", "base.yaml", "--set", "serving.device=cuda")
    assert [old is None for _, old, _ in space.asked] == [True, True]


def test_specs_without_anything_in_common_need_a_place(space):
    Path("far").mkdir()
    Path("far/faq.jsonl").write_text(ROW)
    spec = BASE.replace("./base", "org/model").replace("{file: prompt.jinja}", "chatml")
    Path("far/b.yaml").write_text(spec)
    done = space("lock", "base.yaml", "far/b.yaml")
    assert done.code == 1
    assert "neither a common base nor one directory; say where: -o FILE" in done.err


def test_nothing_to_lock_is_said(space):
    assert "there is no spec to lock" in space("lock").err
    assert "there is no none.lock" in space("lock", "--check", "--lock", "none.lock").err
    assert "none.lock names no specs" in space("lock", "--lock", "none.lock").err


def test_everything_wrong_with_any_spec_is_told_at_once(space):
    for overlay in BOTH:
        Path(overlay).write_text(Path(overlay).read_text() + "tunning: {}\n")
    done = space("lock", *BOTH)
    assert all(f"{overlay}:4:1" in done.err for overlay in BOTH)
    with pytest.raises(TunebuildError):
        load_spec(Path(BOTH[0]))
