"""Whatever stands in a spec file, the answer is a spec or diagnostics inside the file, never a traceback."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunebuild.errors import TunebuildError
from tunebuild.spec import LoadedSpec, load_spec
from tunebuild.spec._explain import violations
from tunebuild.spec.canonical import canonical_yaml
from tunebuild.spec.yaml_loader import parse_yaml

from .test_mutations import SPEC

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "300"))
fuzzed = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

PATHS = sorted(parse_yaml(SPEC.encode(), "x").key_positions, key=str)
TOKENS = [
    *"{}[]:,&*!|>'\"%@`#-?~\n\t ",
    "\n  ",
    ": ",
    "- ",
    "&a ",
    "*a",
    "<<: ",
    "!!int ",
    "---\n",
    "...\n",
    "\u0000",
    "\ufeff",
]
TOKENS += [
    "\ud800",
    "0x",
    "1e999",
    "${env:X}",
    "extends: spec.yaml\n",
    "\u2028",
    "\x85",
    "é",
    "😀",
    "1_000",
    "0o8",
    ".inf",
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    directory = tmp_path_factory.mktemp("specs")
    for name in ("faq", "more", "held_out"):
        (directory / f"{name}.jsonl").write_text("")
    return directory / "spec.yaml"


def check(file, data: bytes, overrides: tuple[str, ...] = ()) -> None:
    file.write_bytes(data)
    lines = (
        data.count(b"\n")
        + data.count(b"\r")
        + data.count("\u2028".encode())
        + data.count("\x85".encode())
        + 2
    )
    try:
        loaded = load_spec(file, overrides)
    except TunebuildError as error:
        assert error.diagnostics
        for diagnostic in error.diagnostics:
            assert str(diagnostic)
            if where := diagnostic.position:
                assert 0 <= where.line <= lines
    else:
        assert isinstance(loaded, LoadedSpec)
        assert not list(violations(loaded.document)), "the models accept what the schema refuses"
        assert parse_yaml(canonical_yaml(loaded.spec).encode(), "x").value["name"] == loaded.spec.name


@pytest.mark.slow
@fuzzed
@given(st.sampled_from(PATHS), json_values)
def test_any_value_in_any_place(file, path, value):
    document = parse_yaml(SPEC.encode(), "x").value
    parent = document
    for part in path[:-1]:
        parent = parent[part]
    parent[path[-1]] = value
    check(file, json.dumps(document).encode())


@fuzzed
@given(
    st.lists(
        st.tuples(
            st.integers(0, len(SPEC)), st.integers(0, 12), st.sampled_from(TOKENS) | st.text(max_size=5)
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_edit_of_the_text(file, edits):
    text = SPEC
    for start, length, new in edits:
        text = text[:start] + new + text[start + length :]
    check(file, text.encode("utf-8", "surrogatepass"))


@pytest.mark.slow
@fuzzed
@given(st.integers(0, len(SPEC)), st.integers(0, len(SPEC)), st.integers(0, len(SPEC)))
def test_any_span_moved_or_doubled(file, start, end, to):
    span = SPEC[min(start, end) : max(start, end)]
    check(file, (SPEC[:to] + span + SPEC[to:]).encode())


@fuzzed
@given(st.binary(max_size=300))
def test_any_bytes(file, data):
    check(file, data)


@fuzzed
@given(
    st.text(max_size=30)
    | st.sampled_from(PATHS).flatmap(lambda p: st.text(max_size=12).map(lambda v: f"{p[0]}.{p[-1]}={v}"))
)
def test_any_override(file, text):
    check(file, SPEC.encode(), (text,))
