"""Checks are independent of one another, and all of them end in a report."""

from __future__ import annotations

import json

import pytest

from support.machine import AnyMachine
from support.models import save_base
from support.quickstart import tunebuild_here
from tunebuild.errors import fail
from tunebuild.preflight.doctor import examine as module
from tunebuild.preflight.doctor.examine import CHECKS, examine
from tunebuild.preflight.doctor.finding import ok, problem, warning


def _fine(machine, needs):
    yield ok("fine")


def _throws(machine, needs):
    yield ok("as far as it went")
    raise RuntimeError("odd\nanswer")


def _refuses(machine, needs):
    raise fail("x", "cannot look", "look closer")
    yield


def test_a_check_that_throws_is_a_finding_beside_the_others():
    found = examine(AnyMachine(), None, [("a", _throws), ("b", _refuses), ("c", _fine)])
    assert [(name, one.status) for name, one in found] == [
        ("a", "ok"), ("a", "problem"), ("b", "problem"), ("c", "ok"),
    ]  # fmt: skip
    assert "RuntimeError: odd" in found[1][1].text
    assert (found[2][1].text, found[2][1].fix) == ("cannot look", "look closer")


@pytest.mark.parametrize("name", [name for name, _ in CHECKS])
def test_a_machine_on_which_every_question_fails_is_no_reason_to_stop(name):
    class Broken(AnyMachine):
        def __getattribute__(self, asked):
            if asked in ("run", "python", "has", "version", "free", "writable", "get"):
                raise OSError(5, "Input/output error")
            return super().__getattribute__(asked)

    check = dict(CHECKS)[name]
    for _, one in examine(Broken(), None, [(name, check)]):
        assert one.status in ("ok", "warning", "problem")


@pytest.fixture
def doctor(tmp_path, monkeypatch, capsys):
    save_base("llama", tmp_path / "base")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"question": "Why?", "answer": "So."}) + "\n")
    (tmp_path / "spec.yaml").write_text(
        "apiVersion: tunebuild/v1\nname: tiny\nmodel: {base: ./base}\nprompt: {template: chatml}\n"
        "data: {train: [{path: rows.jsonl, format: qa}]}\ntuning: {method: lora}\n"
        "image: {repository: registry.example.com/team/tiny}\n"
    )

    def run(*arguments, checks=None):
        if checks:
            monkeypatch.setattr(module.examine, "__defaults__", (checks,))
        return tunebuild_here(capsys, "doctor", *arguments, "--store", tmp_path / "store")

    run.spec = tmp_path / "spec.yaml"
    return run


def test_only_a_problem_fails(doctor):
    assert doctor(checks=[("a", lambda *_: [ok("x"), warning("y", "z")])]).code == 0
    done = doctor(checks=[("a", lambda *_: [problem("it is\x1b[2J broken", "mend it")])])
    assert done.code == 1
    assert "problem  a  it is" in done.out
    assert "fix: mend it" in done.out
    assert "\x1b[2J" not in done.out
    assert "1 problem, 0 warnings, 0 ok" in done.out


def test_json_holds_every_finding(doctor):
    done = doctor("--format", "json", checks=[("a", lambda *_: [warning("y", "z")])])
    assert json.loads(done.out) == {
        "spec": None,
        "findings": [{"check": "a", "status": "warning", "text": "y", "fix": "z"}],
    }


def test_a_spec_is_planned_and_says_what_it_needs(doctor):
    seen = []
    done = doctor(doctor.spec, checks=[("a", lambda machine, needs: seen.append(needs) or [ok("x")])])
    assert done.code == 0, done.err
    (needs,) = seen
    assert (needs.name, needs.method, needs.quantized, needs.hub) == ("tiny", "lora", False, ())
    assert needs.registry == ("registry.example.com", "team/tiny")
    assert needs.memory[0] > 0
    assert needs.disk[2] == 0
    assert not needs.unplanned


def test_a_spec_that_cannot_be_planned_is_a_finding(doctor):
    seen = []
    checks = [("a", lambda machine, needs: seen.append(needs) or [ok("x")])]
    for override in ("model.base=org/model", "tuning.max_length=8"):
        done = doctor(doctor.spec, "--set", override, checks=checks)
        assert done.code == 0, done.err
    absent, long = seen
    assert (absent.hub, absent.refused) == ((("model", "org/model", None),), False)
    assert "has not been downloaded" in absent.unplanned
    assert long.refused
    assert long.unplanned
