"""A template that takes no system turn is one problem of the spec, not one of every row."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from support.models import save_base
from tunebuild.cli import app

TEMPLATE = """\
{%- for m in messages -%}
{%- if m['role'] == 'system' -%}{{ raise_exception('no system turns') }}{%- endif -%}
<|im_start|>{{ m['role'] }}
{{ m['content'] }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}
"""
SPEC = (
    "apiVersion: tunebuild/v1\nname: x\nmodel: {base: ./base}\n"
    "data: {train: [{path: rows.jsonl}]}\nprompt: {template: {file: own.jinja}}\n"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base("llama", tmp_path_factory.mktemp("system") / "base")


def refused(base, tmp_path, rows, *overrides):
    (tmp_path / "base").symlink_to(base)
    (tmp_path / "own.jinja").write_text(TEMPLATE)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    (tmp_path / "spec.yaml").write_text(SPEC)
    sets = [part for override in overrides for part in ("--set", override)]
    argv = ["data", str(tmp_path / "spec.yaml"), "--store", str(tmp_path / "store"), *sets]
    (problem,) = CliRunner().invoke(app, argv, standalone_mode=False).exception.diagnostics
    return problem


def talk(number, *first):
    return [
        *first,
        {"role": "user", "content": f"Why {number}?"},
        {"role": "assistant", "content": f"So {number}."},
    ]


def test_the_specs_own_system_turn(base, tmp_path):
    rows = [talk(n) for n in range(12)]
    rows[5] = [{"role": "user", "content": "Alone?"}]
    problem = refused(base, tmp_path, rows, "prompt.system=Be brief.")
    assert (problem.code, problem.path) == ("system-refused", "prompt.system")
    assert "so 11 of 12 rows cannot be used: " in problem.message
    assert problem.message.count("no system turns") == 1
    assert "rows.jsonl:6" in problem.message


def test_system_turns_of_the_rows(base, tmp_path):
    system = {"role": "system", "content": "Be brief."}
    rows = [talk(n, *[system] * (n % 4 > 0)) for n in range(12)]
    problem = refused(base, tmp_path, rows)
    assert (problem.code, problem.path) == ("system-refused", "prompt.template")
    assert "the system turns of the rows, so 9 of 12 rows cannot be used" in problem.message
    assert problem.message.count("no system turns") == 1


def test_another_refusal_is_the_rows_own(base, tmp_path):
    rows = [[{"role": "user", "content": "Alone?"}]] * 3
    problem = refused(base, tmp_path, rows, "prompt.system=Be brief.")
    assert problem.code == "rejected"
