"""No character that nobody can see reaches a stream or a page, whoever wrote it."""

from __future__ import annotations

import ast
import io
import json
import logging
import os
import re
import unicodedata
from pathlib import Path

import click
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import tunebuild.cli
from tunebuild.cli import _diagnostics, _progress
from tunebuild.cli._echo import echo, echo_json
from tunebuild.cli._errors import run_reporting_errors
from tunebuild.data.rejects import Rejects
from tunebuild.data.rows import Reject
from tunebuild.data.view import DataView, Piece, Sample, as_html
from tunebuild.errors import Diagnostic, Position, TunebuildError
from tunebuild.printable import is_printable, printable, printable_json, printable_line
from tunebuild.report.render import environment, yaml_text
from tunebuild.serve import logs
from tunebuild.spec.canonical import flow

_STRONG_MARKS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
_STYLES = re.compile(r"\x1b\[[0-9;]*m")

#: Every code point, halves of surrogate pairs included, and often those that do harm.
ANY_TEXT = st.text(
    st.one_of(
        st.characters(codec=None, exclude_categories=()),
        st.sampled_from(
            "\x00\x07\x08\r\x1b\x7f\x85\x9b\u200b\u200d\u200e\u202e\u2028\u2066\ud800\udfff\ufeff"
        ),
        st.sampled_from("aЯ漢 \n\t\\👩🏽"),
    ),
    max_size=30,
)


def hidden(text: str) -> list[str]:
    """Controls, line separators, marks and surrogates in a text."""
    return [
        f"U+{ord(character):04X}"
        for character in text
        if (character not in "\n\t" and unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"))
        or unicodedata.bidirectional(character) in _STRONG_MARKS
        or character in "\u061c\u200b\u200e\u200f\u2060\ufeff"
    ]


@settings(deadline=None)
@given(ANY_TEXT)
def test_no_text_keeps_a_control_a_mark_or_half_a_pair(text):
    shown = printable(text)
    assert not hidden(shown)
    assert not set("\n\t") & set(printable_line(text))
    shown.encode("utf-8")
    assert (shown == text) == is_printable(text)


def test_each_code_point_is_shown_or_spelled_out():
    kept_formats, lost = [], []
    for code in range(0x110000):
        character = chr(code)
        category = unicodedata.category(character)
        kept = printable(character) == character
        if category == "Cf" and kept:
            kept_formats.append(code)
        if category[0] in "LNPS" and not kept:
            lost.append(code)
        if category in ("Cc", "Cs", "Zl", "Zp"):
            assert kept == (character in "\n\t"), hex(code)
        if not kept:
            assert f"{code:x}" in printable(character) or character == "\r"
    # Arabic, Syriac and Kaithi number signs, and the joints of hieroglyphs: these are seen.
    assert all(unicodedata.name(chr(c)).startswith(("ARABIC", "SYRIAC", "KAITHI", "EGYPTIAN")) or
               unicodedata.name(chr(c)).startswith("SHORTHAND") for c in kept_formats)  # fmt: skip
    # Letters that are blank by definition.
    assert lost == [0x115F, 0x1160, 0x3164, 0xFFA0]


@pytest.mark.parametrize(
    "text",
    ["👩🏽‍💻 ❤️ 1️⃣ 🏳️‍🌈", "می‌خواهم", "क्‍ष", "naïve Ω 漢字 עברית", "C:\\x1b\\n {a: 'b'}", "NBSP\xa0here"],
)
def test_what_people_write_is_left_alone(text):
    assert printable(text) == text


@settings(deadline=None)
@given(st.recursive(ANY_TEXT, lambda inner: st.dictionaries(ANY_TEXT, inner, max_size=3), max_leaves=4))
def test_json_escapes_keep_the_value(value):
    text = printable_json(value)
    assert not hidden(text)
    assert json.loads(text) == json.loads(json.dumps(value))


@settings(deadline=None)
@given(ANY_TEXT.filter(lambda text: not re.search("[\ud800-\udfff]", text)))
def test_yaml_escapes_keep_the_value(text):
    for written in (yaml_text({text: [text]}), flow({text: [text]})):
        assert not hidden(written)
        assert yaml.load(written, Loader=yaml.BaseLoader) == {text: [text]}


@settings(deadline=None)
@given(ANY_TEXT)
def test_errors_and_lines_of_the_command_show_it(text):
    file = os.fsdecode(text.encode("utf-8", "surrogatepass"))  # names that are not UTF-8 hold halves of pairs
    place = Diagnostic("code", f"cannot read '{text}'", text, text, Position(file, 1, 2))
    for error in (TunebuildError((place,)), click.UsageError(text), OSError(13, text, text)):
        assert not hidden(_STYLES.sub("", _errors_of(error)))
    for report in (_diagnostics.to_json, _diagnostics.to_sarif):
        assert not hidden(_printed(lambda report=report: echo_json(report([place]))))
    assert not hidden(_printed(lambda: echo(text)))


@settings(deadline=None)
@given(ANY_TEXT)
def test_progress_shows_it(text):
    for terminal in (False, True):
        stream = io.StringIO()
        reporter = _progress.Reporter()
        reporter.console.file = stream
        reporter.console._force_terminal = terminal
        progress = reporter("data")
        progress._spoke = -1e9
        progress.step(1, 2, text)
        progress.say(text)
        Console(file=stream).print(reporter.bars.get_renderable())
        assert not hidden(stream.getvalue())


@settings(deadline=None, max_examples=25)
@given(ANY_TEXT)
def test_pages_and_lists_show_it(text):
    stats = {
        "rows": {"train": 1, "eval": 0, "rejected": 1},
        "shortened": 0,
        "tokens": 1,
        "supervised_share": 1.0,
        "length": {"min": 1, "max": 1, "median": 1, "p95": 1},
        "histogram": [{"low": 1, "high": 1, "rows": 1}],
        "rejected": {"empty": 1},
        "found": {"email": 1},
    }
    row = {"file": text, "line": 1, "reason": text, "excerpt": text, "kind": text, "outcome": "reported"}
    pieces = (Piece(text, "given", control=False), Piece(text, "supervised", control=True))
    sample = Sample(text, 1, 1, 1, pieces)
    view = DataView("train", stats, (sample,), ((text, 1, 0),) * 2, (text,), (row,), {}, Path("x"), (row,))
    assert not hidden(as_html(view, text))
    for html in (True, False):
        page = environment("report", html=html).from_string("{{ text }} {{ text | shown }} {{ text | cell }}")
        assert not hidden(page.render(text=text))
    lines = io.StringIO()
    Rejects(lines).add([Reject(text, 1, "empty", text, text)])
    assert not hidden(lines.getvalue())
    assert json.loads(lines.getvalue())["excerpt"] == json.loads(json.dumps(text))


@settings(deadline=None)
@given(ANY_TEXT)
@pytest.mark.parametrize("style", ["text", "json"])
def test_logs_show_it_on_one_line(style, text):
    formatter = logs._Json() if style == "json" else logs._Text("%(levelname)s %(message)s")
    record = logging.LogRecord("x", logging.INFO, "x", 1, "%s", (text.replace("\n", ""),), None)
    record.fields = {"path": text}
    line = formatter.format(record)
    assert not hidden(line)
    assert "\n" not in line


def test_verbs_print_by_way_of_it_alone():
    """A new verb that printed by itself would print what it was given."""
    own = {"_echo.py", "_errors.py", "_progress.py", "data.py"}
    for file in sorted(Path(tunebuild.cli.__path__[0]).glob("*.py")):
        if file.name in own:
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in (
                    "print",
                    "click.echo",
                    "click.secho",
                    "sys.stdout.write",
                    "sys.stderr.write",
                ), f"{file.name}:{node.lineno}: use tunebuild.cli._echo"


def _errors_of(error):
    def end():
        raise error

    return _printed(lambda: run_reporting_errors(end))


def _printed(print_):
    """What a call prints on either stream."""
    import contextlib

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        print_()
    return out.getvalue() + err.getvalue()
