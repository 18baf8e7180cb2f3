"""What people are shown is what is trained on, and nothing that stands in a row can break the page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from support import tokenizers as families
from support.models import save_base
from support.quickstart import tunebuild_here
from tunebuild.data.prompt_source import build_renderer
from tunebuild.data.view import pieces_of
from tunebuild.grammar import counted
from tunebuild.spec.model import PromptSpec

SPEC = """\
apiVersion: tunebuild/v1
name: shown
data:
  train: [{path: rows.jsonl}]
  eval: {fraction: 0.2}
  max_rejected: 0.5
model: {base: ./base}
prompt: {template: chatml}
"""
ROWS = [{"question": f"Is <b>{i}</b> & more?", "answer": f"It is {i}."} for i in range(10)]


@pytest.mark.parametrize("family", sorted(families.FAMILIES))
def test_pieces_are_the_row_in_order(family, tmp_path):
    base = families.save(families.FAMILIES[family](), tmp_path / "base")
    renderer = build_renderer(PromptSpec(), base, tmp_path)
    talk = [
        {"role": "user", "content": "Why is the device warm?"},
        {"role": "assistant", "content": "It works."},
        {"role": "user", "content": "And <|im_end|> then?"},
        {"role": "assistant", "content": "Let go."},
    ]
    example = renderer.example(talk)
    pieces = pieces_of(example.ids, example.labels, renderer.tokenizer)
    supervised = [p for p in pieces if p.kind == "supervised"]
    assert [p.text.strip() for p in supervised] == ["It works.", "<|im_end|>", "Let go.", "<|im_end|>"]
    assert [p.control for p in supervised] == [False, True, False, True]
    assert "And <|im_end|> then?" in "".join(p.text for p in pieces if not p.control)
    assert sum(p.control for p in pieces) == sum(i in renderer.tokenizer.control_ids for i in example.ids)


class Page(HTMLParser):
    """Collects tags, and text by class."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.supervised, self._inside = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._inside = dict(attrs).get("class", "").startswith("supervised")

    def handle_data(self, data):
        if self._inside:
            self.supervised.append(data)
        self._inside = False


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("shown")
    save_base("llama", directory / "base")
    lines = [json.dumps(row) for row in ROWS]
    (directory / "rows.jsonl").write_text("\n".join([*lines, lines[0], "<script>alert(1)</script>"]) + "\n")
    (directory / "spec.yaml").write_text(SPEC)
    return directory


def run(directory, *arguments):
    argv = [
        sys.executable,
        "-c",
        "from tunebuild.cli import main; main()",
        "data",
        str(directory / "spec.yaml"),
    ]
    done = subprocess.run(
        [*argv, "--store", str(directory / "store"), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_terminal_shows_prompt_and_answer(directory):
    shown = run(directory, "--samples", "8")
    assert "8 rows to train on, 2 held out, 2 not used" in shown
    assert re.search(r"1 unreadable\n +rows.jsonl:12: is not JSON", shown)
    assert re.search(r"1 duplicate\n +rows.jsonl:11: says the same as rows.jsonl:1\n", shown)
    (listed,) = re.findall("all of them.*: (.*)", shown)
    assert [json.loads(line)["line"] for line in Path(listed).read_text().splitlines()] == [12, 11]
    assert len(re.findall(r"── rows\.jsonl, row \d+: \d+ tokens", shown)) == 8
    questions = re.findall(r"<\|im_start\|>user\nIs <b>(\d)</b> & more\?<\|im_end\|>", shown)
    answers = re.findall(r"<\|im_start\|>assistant\n⟦It is (\d)\.<\|im_end\|>⟧", shown)
    assert len(questions) == 8
    assert answers == questions


SEVERAL = """\
apiVersion: tunebuild/v1
name: several
data:
  train: [{path: one.jsonl}, {path: "two[red].jsonl"}, {path: last.jsonl}]
  eval: {files: [{path: held.jsonl}]}
model: {base: ./base}
prompt: {template: chatml}
tuning: {method: lora}
"""


# Clears the screen, colors what follows, and turns its direction.
CODES = " \x1b[2J\x1b[31mred\x1b[0m \u202eback"


@pytest.fixture(scope="module")
def several(directory):
    """Four files, of which one has keys and columns that no prompt shows."""
    for name, count in (("one", 40), ("two[red]", 2), ("held", 3)):
        rows = [{"question": f"What of {name} {n}?", "answer": f"It is {n}.{CODES}"} for n in range(count)]
        (directory / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    turns = [{"role": "user", "content": "Last?", "name": "Ann"}, {"role": "assistant", "content": "Yes."}]
    (directory / "last.jsonl").write_text(json.dumps({"messages": turns, "id": 7}) + "\n")
    (directory / "several.yaml").write_text(SEVERAL)
    return directory / "several.yaml"


UNSHOWN = (
    "last.jsonl: column 'id' is not used (1 row)",
    "last.jsonl: 'name' of 1 user turn is not printed by the template",
)


def test_rows_of_every_source_are_shown(several, capsys):
    store = ("--store", several.parent / "store")
    shown = tunebuild_here(capsys, "data", several, "--samples", "3", *store).out
    found = re.findall(r"── (\S+), row (\d+): ", shown)
    assert found == [
        *(("one.jsonl", n) for n in ("1", "14", "27")),
        *(("two[red].jsonl", n) for n in ("1", "2")),
        ("last.jsonl", "1"),
    ]
    # Each sample is a row of the source that it is said to be of, at its place.
    asked = re.findall(r"What of (\S+) (\d+)\?", shown)
    assert [(f"{name}.jsonl", str(int(n) + 1)) for name, n in asked] == found[:-1]
    assert "  two[red].jsonl: 2 to train on, 0 held out\n  last.jsonl: 1 to train on, 0 held out" in shown
    assert "  held.jsonl: 0 to train on, 3 held out" in shown
    assert not {"\x1b", "\u202e"} & set(shown)
    assert r" \x1b[2J\x1b[31mred\x1b[0m \u202eback" in shown
    held = tunebuild_here(capsys, "data", several, "--held-out", *store).out
    assert re.findall(r"── (\S+), row (\d+): ", held) == [("held.jsonl", n) for n in "123"]


def test_what_no_prompt_shows_is_said_each_time(several, capsys):
    """The rows are read once; what is dropped is said by whatever shows them, also when they are not read."""
    store = ("--store", several.parent / "store")
    page = several.parent / "several.html"
    tunebuild_here(capsys, "data", several, "--html", page, *store)
    said = [
        tunebuild_here(capsys, "data", several, *store).out,
        page.read_text().replace("&#39;", "'"),
        tunebuild_here(capsys, "plan", several, *store).out,
        tunebuild_here(capsys, "plan", several, "--markdown", *store).out,
    ]
    planned = json.loads(tunebuild_here(capsys, "plan", several, "--json", *store).out)
    assert set(planned["data"]["unshown"]) == set(UNSHOWN)
    for text in said:
        assert not {"\x1b", "\u202e"} & set(text)
        assert [line in text for line in UNSHOWN] == [True, True]


def test_one_is_singular():
    assert [counted(n, "row") for n in (0, 1, 2, 1000)] == ["0 rows", "1 row", "2 rows", "1,000 rows"]


def test_the_page_is_whole_and_safe(directory):
    run(directory, "--samples", "8", "--held-out", "--html", str(directory / "page.html"))
    text = (directory / "page.html").read_text()
    page = Page(text)
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert not re.search(r'(src|href)="', text)
    assert "Is &lt;b&gt;" in text
    assert "&lt;script&gt;alert(1)" in text or "is not JSON" in text
    stats = [int(n) for n in re.findall(r"tokens: (\d+) rows</title>", text)]
    assert sum(stats) == 8
    assert len([t for t in page.supervised if t.startswith("It is ")]) == 2
