"""Rules of the data section that span fields: refused at the place, in words that help."""

from __future__ import annotations

import pytest

from tunebuild.errors import TunebuildError
from tunebuild.spec import load_spec

SPEC = """\
apiVersion: tunebuild/v1
name: x
model: {base: org/model}
data:
  train:
    - path: rows.jsonl
      where:
        score: %s
  eval:
    files: [{path: rows.jsonl%s}]
"""


def diagnose(directory, condition="5", more=""):
    (directory / "rows.jsonl").touch()
    (directory / "spec.yaml").write_text(SPEC % (condition, more))
    try:
        load_spec(directory / "spec.yaml")
    except TunebuildError as error:
        return [(d.position.line, d.path, d.message) for d in error.diagnostics]
    return []


@pytest.mark.parametrize(
    "condition", ["5", "[1, 2]", "{min: 0.8}", "{in: [a], not: b, matches: '^a'}", "null"]
)
def test_conditions_that_can_hold(tmp_path, condition):
    assert diagnose(tmp_path, condition) == []


@pytest.mark.parametrize(
    ("condition", "path", "message"),
    [
        ("{}", "score", "says nothing"),
        ("{min: 2, max: 1}", "score.min", "nothing is at least 2 and at most 1"),
        ("{matches: '(a'}", "score.matches", "is no regular expression: missing )"),
    ],
)
def test_conditions_that_cannot(tmp_path, condition, path, message):
    ((line, where, said),) = diagnose(tmp_path, condition)
    assert (line, where) == (8, f"data.train[0].where.{path}")
    assert said.startswith(message)


def test_an_unknown_word_is_no_condition(tmp_path):
    ((line, path, said),) = diagnose(tmp_path, "{minimum: 2}")
    assert (line, path, said) == (8, "data.train[0].where.score.minimum", "unknown key")


def test_held_out_rows_have_no_weight(tmp_path):
    ((line, path, said),) = diagnose(tmp_path, more=", weight: 0.5")
    assert (line, path) == (10, "data.eval.files[0].weight")
    assert said == "rows that are held out have no weight: each is measured once"
