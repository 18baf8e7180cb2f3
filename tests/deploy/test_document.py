"""What is written reads back, whatever a reader of YAML takes for a number, a truth or a time."""

from __future__ import annotations

import re

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunebuild.deploy.document import Document, render

# What YAML 1.1 as Go reads it and YAML 1.2 take for something else than text, where it is not quoted.
_OTHER = re.compile(
    r"(?i)y|n|yes|no|on|off|true|false|null|~|"
    r"[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-f_]+|[0-9][0-9_]*(:[0-5]?[0-9])*(\.[0-9_]*)?|\.[0-9_]+)(e[-+]?[0-9]+)?|"
    r"[-+]?\.(inf|nan)|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}.*"
)

_calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@_calm
@given(st.dictionaries(st.text("abcdef", min_size=1), st.text() | st.integers() | st.booleans()))
def test_any_text_reads_back(value):
    assert yaml.safe_load(render([Document(value)])) == value


@_calm
@given(st.from_regex(_OTHER, fullmatch=True).filter(str.isprintable))
def test_what_looks_like_another_type_is_quoted(text):
    assert render([Document({"a": text})]).startswith('a: "')


@pytest.mark.parametrize(
    "text", ["sha256:abc", "repo/x@sha256:abc", "kubectl apply", "/readyz", "nvidia.com/gpu"]
)
def test_ordinary_text_is_not_quoted(text):
    assert render([Document({"a": text})]) == f"a: {text}\n"


def test_comments_stand_above_their_document():
    text = render([Document({"a": 1}), Document({"b": 2}, ("why",))], ["what"])
    assert text == "# what\na: 1\n---\n# why\nb: 2\n"


def test_a_list_used_twice_is_written_twice():
    shared = {"x": "y1"}
    assert "&" not in render([Document({"a": shared, "b": shared})])
