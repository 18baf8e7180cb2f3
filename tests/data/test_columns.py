"""Every column that a format reads may be called otherwise in the file."""

from __future__ import annotations

import pytest

from tunebuild.data.formats import FORMATS, PLAIN, to_conversation
from tunebuild.spec import load_spec

TURNS = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
TOOLS = [{"name": "look", "parameters": {"type": "object", "properties": {}}}]
SAID = {"system": "Be kind.", "history": [["Who?", "I."]]}
ROWS = {
    "qa": {"question": "Why?", "answer": "So.", **SAID},
    "alpaca": {"instruction": "Why?", "input": "That.", "output": "So.", **SAID},
    "prompt_completion": {"prompt": "Why?", "completion": "So.", **SAID},
    "messages": {"messages": TURNS, "tools": TOOLS, "system": "Be kind."},
    "sharegpt": {"conversations": TURNS, "tools": TOOLS, "system": "Be kind."},
    PLAIN: {"text": "Once."},
}
SPEC = """\
apiVersion: tunebuild/v1
name: a
model: {base: example-org/tiny}
data:
  train: [{path: rows.jsonl, format: %s, columns: {%s: theirs}}]
"""


def test_every_format_is_tried():
    assert set(ROWS) == set(FORMATS)


@pytest.mark.parametrize(("form", "column"), [(form, column) for form, row in ROWS.items() for column in row])
def test_a_column_of_another_name_is_read_as_its_own(tmp_path, form, column):
    row = dict(ROWS[form])
    renamed = {"theirs" if name == column else name: value for name, value in row.items()}
    assert to_conversation(renamed, form, {column: "theirs"}) == to_conversation(row, form, {})
    if column in ("system", "history", "tools", "input"):  # the others a row cannot do without
        assert to_conversation({**row, column: None}, form, {}) != to_conversation(row, form, {})
    (tmp_path / "rows.jsonl").touch()
    (tmp_path / "spec.yaml").write_text(SPEC % (form, column))
    assert load_spec(tmp_path / "spec.yaml").spec.data.train[0].columns == {column: "theirs"}
