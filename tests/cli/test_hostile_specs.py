"""Whatever stands in any field of a spec, and whatever a base holds, a verb ends with an answer."""

from __future__ import annotations

import contextlib
import io
import json
from functools import cache

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.models import save_base
from tunebuild.cli import app
from tunebuild.cli._errors import run_reporting_errors
from tunebuild.spec.publish import generate_schema

SPEC = {
    "apiVersion": "tunebuild/v1",
    "name": "tiny",
    "data": {"train": [{"path": "rows.jsonl", "format": "qa"}], "eval": {"fraction": 0.25}},
    "model": {"base": "./base"},
    "prompt": {"template": "chatml"},
    "tuning": {"method": "lora"},
}
ROWS = [{"question": f"What is {n}?", "answer": f"It is {n}."} for n in range(8)]


@cache
def fields() -> list[tuple[str, ...]]:
    """Every field of the schema, by its path; of a list, its first item."""
    schema = generate_schema()
    found: list[tuple[str, ...]] = []

    def walk(node: dict, path: tuple, seen: tuple) -> None:
        if (name := node.get("$ref")) and name not in seen:
            walk(schema["$defs"][name.rpartition("/")[2]], path, (*seen, name))
        for part in (*node.get("anyOf", ()), *node.get("oneOf", ()), *node.get("allOf", ())):
            walk(part, path, seen)
        if isinstance(node.get("items"), dict):
            walk(node["items"], (*path, 0), seen)
        for key, inner in node.get("properties", {}).items():
            found.append((*path, key))
            walk(inner, (*path, key), seen)

    walk(schema, (), ())
    return sorted(set(found), key=str)


DEEP: object = "x"
for _ in range(60):
    DEEP = [DEEP]
#: As they stand in a file; JSON is YAML, but for numbers that JSON has no words for.
HOSTILE = [
    *("1e309", "-1e309"),
    *(".inf", "-.inf", ".nan", "1e-320", "5e-324", "-0.0", "-0", "0", "-1", "9" * 400),
    *(
        "1e300",
        "1.7976931348623157e308",
        "9007199254740993",
        "18446744073709551616",
        "0x" + "f" * 16,
        "0o777",
    ),
    *(
        "''",
        "'\\0'",
        '"\\0"',
        '"\\x1b[2J\\u202e"',
        "'\u200b'",
        "' '",
        "'.'",
        "'..'",
        "'/'",
        "'~'",
        "'a/../b'",
    ),
    *("'{{ x }}'", "'%s%n'", "'-'", "'*'", "'[a'", "'" + "x" * 5000 + "'", "'" + "é" * 300 + "'", "1_000"),
    *("null", "true", "[]", "{}", "[[]]", "[null]", "{'': ''}", "{x: {x: x}}", "2020-01-01", "[1e309]"),
    *("!!binary aGk=", "&a [*a]", "'@'", "'http://['", "'oci:'", "'apt'", json.dumps(DEEP)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    directory = tmp_path_factory.mktemp("hostile")
    save_base("llama", directory / "base")
    (directory / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return directory


def ends_well(*argv: object) -> int:
    """The exit code of a verb; what it cannot do must be said, and no exception may come out."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_reporting_errors(lambda: app(list(map(str, argv)), standalone_mode=False))
    assert code in (0, 1, 2), argv
    assert "Traceback" not in err.getvalue()
    if code == 1:
        assert err.getvalue().strip(), argv
    return code


def check(folder, text: str) -> None:
    """A spec's text through the three verbs."""
    spec = folder / "spec.yaml"
    spec.write_bytes(text.encode("utf-8", "surrogatepass"))
    valid = ends_well("validate", spec) == 0
    # What is fetched has tests of its own; here a name would be looked up on a network.
    if valid and "http" not in text:
        for verb in ("data", "plan"):
            ends_well(verb, spec, "--store", folder / "store")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(fields()), st.sampled_from(HOSTILE)), min_size=1, max_size=2))
def test_hostile_values_anywhere_are_used_or_refused(folder, edits):
    check(folder, written(edits))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(("tuning", "serving", "data", "evaluation", "gates")),
    st.data(),
    st.floats(allow_nan=False, allow_infinity=False) | st.integers(),
)
def test_any_number_in_a_field_of_numbers_is_used_or_refused(folder, section, data, number):
    path = data.draw(st.sampled_from([path for path in fields() if path[0] == section]))
    check(folder, written([(path, repr(number))]))


def test_numbers_without_end_are_refused_where_they_stand(folder):
    spec = folder / "spec.yaml"
    for number in ("1e309", ".inf", ".nan", "-1e400"):
        spec.write_text(written([(("tuning", "epochs"), number)]))
        shown = CliRunner().invoke(app, ["validate", str(spec)], standalone_mode=False)
        assert f"{number} is not a number that a spec can use" in str(shown.exception)
        assert ends_well("plan", spec, "--set", f"tuning.epochs={number}") == 1


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("data", "train", 0, "path"), '"\\0"'),
        (("data", "train", 0, "max_rows"), "18446744073709551616"),
        (("data", "train", 0, "path"), "'" + "x" * 5000 + "'"),
        (("model", "base"), "'./" + "x" * 5000 + "'"),
        (("prompt", "template", "file"), "'" + "é" * 300 + "'"),
        (("extends",), "'" + "é" * 300 + "'"),
    ],
)
def test_names_that_no_file_can_have_and_counts_beyond_a_machine_word(folder, path, value):
    check(folder, written([(path, value)]))


def test_a_half_of_a_surrogate_pair_in_an_option_is_refused(folder):
    (folder / "spec.yaml").write_text(written([]))
    assert ends_well("validate", folder / "spec.yaml", "--set", "name=\udcff") == 1


def written(edits) -> str:
    """The spec with values, given as YAML, in places that need not be there."""
    document = json.loads(json.dumps(SPEC))
    marks = {}
    for number, (path, value) in enumerate(edits):
        parent = document
        for part, following in zip(path, (*path[1:], None), strict=True):
            if isinstance(part, int):
                if not isinstance(parent, list) or part > len(parent):
                    break
                if part == len(parent):
                    parent.append(None)
            elif not isinstance(parent, dict):
                break
            else:
                parent.setdefault(part, None)
            if following is None:
                parent[part] = f"mark-{number}"
                marks[f'"mark-{number}"'] = value
            elif not isinstance(parent[part], dict | list):
                parent[part] = [] if isinstance(following, int) else {}
            parent = parent[part]
    text = json.dumps(document)
    for mark, value in marks.items():
        text = text.replace(mark, f" {value} ")
    return text
