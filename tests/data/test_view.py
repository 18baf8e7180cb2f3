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
    assert len(re.findall(r"── row \d+: \d+ tokens", shown)) == 8
    questions = re.findall(r"<\|im_start\|>user\nIs <b>(\d)</b> & more\?<\|im_end\|>", shown)
    answers = re.findall(r"<\|im_start\|>assistant\n⟦It is (\d)\.<\|im_end\|>⟧", shown)
    assert len(questions) == 8
    assert answers == questions


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
