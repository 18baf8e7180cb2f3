"""Rows are used or accounted for; targets are never cut; what is written is what the renderer said."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from support import tokenizers as families
from support.prepared import prepare_rows
from tunebuild.data.formats import FORMATS, RowRejected, detect_format, to_conversation
from tunebuild.data.prompt_source import build_renderer
from tunebuild.data.reading import SourceRow, read_rows
from tunebuild.data.reject_limit import check_rejects
from tunebuild.data.rows import RowSource
from tunebuild.data.selection import select
from tunebuild.data.stage import DataStage
from tunebuild.data.tokenize import Chunk, Tokenizer
from tunebuild.data.workers import tokenise_in_order
from tunebuild.errors import TunebuildError
from tunebuild.prompt import check_golden, load_golden, load_prompt
from tunebuild.spec.data import Condition, DataSource, DataSpec, EvalSplit
from tunebuild.spec.model import PromptSpec
from tunebuild.store import Silent, Store, digest_file

QA = [{"question": f"Question {i}?", "answer": f"The answer is {i}."} for i in range(20)]


@pytest.fixture
def base(tmp_path):
    return families.save(families.byte_level(), tmp_path / "base")


@pytest.fixture
def renderer(base, tmp_path):
    return build_renderer(PromptSpec(), base, tmp_path)


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def policies(**data):
    return DataSpec(train=(DataSource(path="rows.jsonl"),), **data)


def source(path, format_name="qa", **columns):
    return RowSource(path, path.name, format_name, columns)


def stage(tmp_path, renderer, rows, **data):
    path = jsonl(tmp_path / "rows.jsonl", rows)
    spec = DataSpec(train=(DataSource(path="rows.jsonl", format="qa"),), **data)
    return DataStage(
        data=spec,
        train=(source(path),),
        held_out=(),
        file_digests=(digest_file(path),),
        renderer=renderer,
        tokenizer_dir=tmp_path / "base",
        max_length=200,
        seed=0,
        vocabulary_size=renderer.tokenizer.vocabulary_size,
    )


@pytest.mark.parametrize(
    ("format_name", "row"),
    [
        ("qa", {"question": "q", "answer": "a"}),
        ("alpaca", {"instruction": "q", "input": "", "output": "a"}),
        ("alpaca", {"instruction": "q", "output": "a"}),
        ("sharegpt", {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}),
        (
            "messages",
            {
                "messages": [
                    {"role": "user", "content": "q", "name": None},
                    {"role": "assistant", "content": "a", "tool_calls": None},
                ]
            },
        ),
        ("prompt_completion", {"prompt": "q", "completion": "a"}),
        ("messages", {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}),
    ],
)
def test_every_format_gives_the_same_conversation(format_name, row):
    assert detect_format(row, {}) == format_name
    assert to_conversation(row, format_name, {}).messages == [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
    ]


def test_rows_behind_the_most_are_not_read(tmp_path, renderer):
    rows = [{"question": f"q{n}", "answer": "a"} for n in range(1200)]
    whole = stage(tmp_path, renderer, rows)
    limited = replace(whole, train=(replace(whole.train[0], most=701),))
    assert limited.own() != whole.own()
    for one, expected in ((whole, 1200), (limited, 701)):
        work = tmp_path / str(expected)
        (work / "out").mkdir(parents=True)
        one.run(work, work / "out", Silent())
        stats = json.loads((work / "out" / "stats.json").read_text())
        assert stats["rows"] == {"train": expected, "eval": 0, "rejected": 0}


def test_alpaca_input_follows_the_instruction():
    row = {"instruction": "Translate", "input": "Guten Tag", "output": "Hello"}
    assert to_conversation(row, "alpaca", {}).messages[0]["content"] == "Translate\n\nGuten Tag"


def test_columns_are_mapped():
    row = {"frage": "q", "antwort": "a"}
    mapped = to_conversation(row, "qa", {"question": "frage", "answer": "antwort"})
    assert [m["content"] for m in mapped.messages] == ["q", "a"]


@pytest.mark.parametrize(
    ("format_name", "row", "reason"),
    [
        ("qa", {"question": "q"}, "has no column 'answer'"),
        ("qa", {"question": "q", "answer": "  "}, "'answer' is empty"),
        ("qa", {"question": "q", "answer": 3}, "'answer' is not text"),
        ("qa", {"question": None, "answer": "a"}, "'question' is not text"),
        ("qa", ["q", "a"], "is not a mapping"),
        ("messages", {"messages": []}, "not a list of turns"),
        (
            "messages",
            {"messages": [{"role": "narrator", "content": "q"}]},
            "turn 1 is of 'narrator'",
        ),
        (
            "messages",
            {"messages": [{"role": "user", "content": "q"}]},
            "the last turn is not the assistant's",
        ),
        ("messages", {"messages": [{"role": "assistant", "content": ""}]}, "the answer is empty"),
    ],
)
def test_unusable_rows_say_why(format_name, row, reason):
    with pytest.raises(RowRejected, match=reason):
        to_conversation(row, format_name, {})


def test_all_file_kinds_read_alike(tmp_path):
    rows = [{"question": "a, b\nc", "answer": 'd "e"'}, {"question": "ü", "answer": "x"}]
    jsonl(tmp_path / "r.jsonl", rows)
    (tmp_path / "r.json").write_text(json.dumps(rows))
    (tmp_path / "r.csv").write_bytes('\ufeffquestion,answer\r\n"a, b\nc","d ""e"""\r\nü,x\r\n'.encode())
    for name in ("r.jsonl", "r.json", "r.csv"):
        assert [row.value for row in read_rows(tmp_path / name, name)] == rows, name
    assert [row.line for row in read_rows(tmp_path / "r.csv", "r.csv")] == [2, 4]


def test_unreadable_rows_are_rejected_with_their_line(tmp_path, renderer):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"question": "q", "answer": "a"}\n\n{"question": \n\xff\xfe\n["list"]\n')
    prepared = prepare_rows(tmp_path, [source(path)], renderer, policies())
    assert len(prepared.kept) == 1
    assert [(r.line, r.code) for r in prepared.rejects] == [
        (3, "unreadable"),
        (4, "unreadable"),
        (5, "bad-row"),
    ]
    assert [r.excerpt for r in prepared.rejects] == ['{"question":', "\ufffd\ufffd", '["list"]']
    with pytest.raises(TunebuildError, match=r"3 of 4 rows cannot be used(.|\n)*rows.jsonl:3: is not JSON"):
        check_rejects(1, prepared.account, 0.5)
    check_rejects(1, prepared.account, 0.75)


def test_ragged_csv_lines_are_rejected(tmp_path):
    (tmp_path / "r.csv").write_text("question,answer\nonly\nq,a\n")
    rows = list(read_rows(tmp_path / "r.csv", "r.csv"))
    assert rows[0].problem == "has 1 cell, the header has 2"
    assert rows[1].value == {"question": "q", "answer": "a"}


def test_long_rows_stop_the_build_or_are_dropped_never_cut(tmp_path, renderer):
    path = jsonl(tmp_path / "rows.jsonl", [QA[0], {"question": "q", "answer": "long " * 300}])
    with pytest.raises(TunebuildError, match=r"1 of 2 rows.*\n  rows.jsonl:2: has \d+ tokens, at most 200"):
        prepare_rows(tmp_path, [source(path)], renderer, policies())
    prepared = prepare_rows(tmp_path, [source(path)], renderer, policies(on_long="drop"))
    assert [r.code for r in prepared.rejects] == ["too-long"]
    assert len(prepared.kept) == 1
    check_rejects(1, prepared.account, 0.0)
    with pytest.raises(TunebuildError, match="no training row is left: 1 too-long; raise tuning"):
        check_rejects(0, prepared.account, 0.0)


CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 2}}}


@pytest.mark.parametrize(("template", "codes"), [("chatml", ["calls-not-printed"] * 2), ("qwen", [])])
def test_no_tool_call_is_dropped_without_a_word(tmp_path, base, template, codes):
    asked = {"role": "user", "content": "2+2?"}
    rows = [
        {"messages": [asked, {"role": "assistant", "content": content, "tool_calls": calls}]}
        for content, calls in ((None, [CALL]), ("Let me see.", [CALL]), ("4", []), ("4.", None))
    ]
    chosen = source(jsonl(tmp_path / "rows.jsonl", rows), "messages")
    renderer = build_renderer(PromptSpec(template=template), base, tmp_path)
    prepared = prepare_rows(tmp_path, [chosen], renderer, policies())
    assert [r.code for r in prepared.rejects] == codes
    assert len(prepared.kept) == 4 - len(codes)
    assert all("prints none of its tool calls" in r.reason for r in prepared.rejects)
    assert prepared.account.bad == len(codes)


def test_a_list_of_tools_is_said_to_be_unused_once_a_file(tmp_path, renderer):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    rows = [{"messages": turns, "tools": tools} for tools in ([CALL], [CALL], None)]
    files = [jsonl(tmp_path / f"{n}.jsonl", part) for n, part in enumerate((rows, rows[2:]))]
    (line,) = prepare_rows(tmp_path, [source(f, "messages") for f in files], renderer, policies()).said
    assert line == "0.jsonl: template 'base' lists no tools, and 2 rows have some"


def test_the_length_that_all_rows_need_is_said_at_once(tmp_path, renderer):
    rows = [{"question": "q", "answer": "word " * n} for n in (1, *range(300, 900))]
    path = jsonl(tmp_path / "rows.jsonl", [*rows, rows[1]])
    with pytest.raises(TunebuildError, match=r"too low for 601 of 602 rows(.|\n)*and 591 more") as error:
        prepare_rows(tmp_path, [source(path)], renderer, policies())
    (need,) = map(int, re.findall(r"the longest of which has (\d+) tokens", str(error.value)))
    assert len(prepare_rows(tmp_path, [source(path)], renderer, policies(), need).kept) == 602
    with pytest.raises(TunebuildError, match="too low for 1 of 602 rows"):
        prepare_rows(tmp_path, [source(path)], renderer, policies(), need - 1)


def test_repeated_rows_are_used_once(tmp_path, renderer):
    rows = [QA[0], QA[1], QA[0], {"question": "question 1", "answer": "THE ANSWER IS 1"}]
    path = jsonl(tmp_path / "rows.jsonl", rows)
    lines = {}
    for deduplicate in ("off", "exact", "folded"):
        data = policies(deduplicate=deduplicate)
        found = prepare_rows(tmp_path, [source(path)], renderer, data)
        columns = found.prepared.columns
        chosen = select(columns, found.account, data, [False], [1.0], 0)
        lines[deduplicate] = columns.line[chosen.times > 0].tolist()
        assert (
            columns.line[chosen.duplicate_of[chosen.duplicate_of >= 0]].tolist()
            == {"off": [], "exact": [1], "folded": [1, 2]}[deduplicate]
        )
    assert lines == {"off": [1, 2, 3, 4], "exact": [1, 2, 4], "folded": [1, 2]}


def test_rows_are_chosen_by_their_columns(tmp_path, renderer):
    rows = [
        {**row, "lang": lang, "n": n}
        for n, (row, lang) in enumerate(zip(QA[:4], ["en", "de", "en", "fr"], strict=True))
    ]
    path = jsonl(tmp_path / "rows.jsonl", rows)
    chosen = RowSource(path, path.name, "auto", where={"lang": ("en", "fr"), "n": (0, 3)})
    prepared = prepare_rows(tmp_path, [chosen], renderer, policies())
    assert [row.line for row in prepared.kept] == [1, 4]
    assert [(r.line, r.code) for r in prepared.rejects] == [(2, "filtered"), (3, "filtered")]
    check_rejects(2, prepared.account, 0.0)


def test_a_mapped_column_that_is_nowhere_stops_the_build(tmp_path, renderer):
    path = jsonl(tmp_path / "rows.jsonl", [{"instruction": "q", "output": "a", "input": ""}])
    with pytest.raises(TunebuildError, match="no row has anything in column 'context'"):
        prepare_rows(tmp_path, [source(path, "alpaca", input="context")], renderer, policies())


def test_a_mapped_column_may_be_empty_in_the_part_of_a_file_that_is_read(tmp_path, renderer):
    rows = [{"instruction": "q", "output": "a", "input": ""}, {"instruction": "q", "output": "a", "ctx": "c"}]
    chosen = source(jsonl(tmp_path / "rows.jsonl", rows), "alpaca", input="ctx")
    prepared = prepare_rows(tmp_path, [replace(chosen, most=1)], renderer, policies())
    assert [row.line for row in prepared.kept] == [1]


@pytest.mark.parametrize(
    ("columns", "missing"), [({}, "'question' or 'answer'"), ({"question": "Asked"}, "'answer'")]
)
def test_columns_of_other_names_are_said_once_for_the_file(tmp_path, renderer, columns, missing):
    path = tmp_path / "rows.csv"
    path.write_text("Asked,Reply Text\n" + "q,a\n" * 9)
    with pytest.raises(TunebuildError, match=f"rows.csv: no row has .*{missing}.*: Asked, Reply") as error:
        prepare_rows(tmp_path, [replace(source(path, **columns), most=5)], renderer, policies())
    hint = error.value.diagnostics[0].hint
    assert re.findall(r"(\w+): \.\.\.", hint) == re.findall(r"'(\w+)'", missing)
    mapped = source(path, question="Asked", answer="Reply Text")
    assert len(prepare_rows(tmp_path, [mapped], renderer, policies()).kept) == 9


def test_a_column_to_choose_by_that_is_nowhere_stops_the_build(tmp_path, renderer):
    path = jsonl(tmp_path / "rows.jsonl", [{**QA[0], "lang": "en"}, QA[1]])
    for lang, kept in ((Condition(other_than="de"), [1, 2]), ("en", [1]), ("fr", [])):
        right = RowSource(path, path.name, "qa", where={"lang": lang})
        assert [r.line for r in prepare_rows(tmp_path, [right], renderer, policies()).kept] == kept
        with pytest.raises(TunebuildError, match=r"rows.jsonl: no row has .*'lng'.*: question, answer, lang"):
            prepare_rows(tmp_path, [replace(right, where={"lng": lang})], renderer, policies())


def test_a_column_to_choose_by_may_stand_further_on_than_is_read(tmp_path, renderer):
    path = jsonl(tmp_path / "rows.jsonl", [QA[0], {**QA[1], "status": "draft"}])
    chosen = RowSource(path, path.name, "qa", where={"status": Condition(other_than="draft")}, most=1)
    assert len(prepare_rows(tmp_path, [chosen], renderer, policies()).kept) == 1


def test_rows_that_cannot_be_read_are_not_blamed_on_columns(tmp_path, renderer):
    (tmp_path / "rows.jsonl").write_text("not json\n")
    prepared = prepare_rows(tmp_path, [source(tmp_path / "rows.jsonl", answer="reply")], renderer, policies())
    assert [r.code for r in prepared.rejects] == ["unreadable"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("rows/*.jsonl", ["rows/a.jsonl", "rows/b.jsonl"]),
        ("**/*.jsonl", ["c[1].jsonl", "rows/a.jsonl", "rows/b.jsonl"]),
        ("c[1].jsonl", ["c[1].jsonl"]),
        ("rows/[a].*", ["rows/a.jsonl"]),
        ("rows", []),
        ("no.jsonl", []),
        ("no*.jsonl", []),
        ("**rows", []),
        ("/*", []),
    ],
)
def test_patterns_name_files_in_order(tmp_path, pattern, names):
    (tmp_path / "rows").mkdir()
    for name in ("rows/b.jsonl", "rows/a.jsonl", "c[1].jsonl"):
        (tmp_path / name).write_text("")
    assert DataSource(path=pattern).files(tmp_path) == names


@pytest.mark.parametrize("words", [50, 300])
def test_a_long_prompt_is_cut_at_its_beginning_and_no_more_than_needed(tmp_path, renderer, words):
    asked = " ".join(str(i) for i in range(words)) + " end"
    turns = [
        {"role": "user", "content": "start " + "w " * 200},
        {"role": "assistant", "content": "One."},
        {"role": "user", "content": asked},
        {"role": "assistant", "content": "Two."},
    ]
    path = jsonl(tmp_path / "rows.jsonl", [{"messages": turns}])
    (row,) = prepare_rows(
        tmp_path, [source(path, "messages")], renderer, policies(on_long="truncate_prompt")
    ).kept
    assert row.shortened
    assert 190 < len(row.example.ids) <= 200
    assert [m["content"] for m in row.messages if m["role"] == "assistant"] == ["One.", "Two."]
    assert asked.endswith(row.messages[2]["content"])
    assert row.example == renderer.example(row.messages)


def test_an_answer_that_is_too_long_is_not_cut(tmp_path, renderer):
    path = jsonl(tmp_path / "rows.jsonl", [QA[0], {"question": "q" * 400, "answer": "long " * 300}])
    prepared = prepare_rows(tmp_path, [source(path)], renderer, policies(on_long="truncate_prompt"))
    assert [(r.line, r.code) for r in prepared.rejects] == [(2, "answer-too-long")]
    with pytest.raises(TunebuildError, match=r"1 of 2 rows(.|\n)*raise tuning.max_length, or raise data"):
        check_rejects(1, prepared.account, 0.0)


def test_plain_text_is_supervised_whole(tmp_path, renderer):
    path = jsonl(tmp_path / "rows.jsonl", [{"text": "All of this, <|im_end|> too."}])
    (row,) = prepare_rows(tmp_path, [source(path, "auto")], renderer, policies()).kept
    assert row.example.supervised == ((0, len(row.example.ids)),)
    assert row.example.ids[-1] == renderer.turn_end_id
    assert row.example.ids[:-1] == renderer.encode_text("All of this, <|im_end|> too.")
    assert not set(row.example.ids[:-1]) & renderer.tokenizer.control_ids


@pytest.mark.slow
def test_many_processes_write_what_one_does(tmp_path, renderer, monkeypatch):
    rows = [{"question": f"Question {i}?", "answer": f"It is {i}." * (1 + i % 40)} for i in range(3100)]
    rows[2700] = {"question": "no answer"}
    first, second = jsonl(tmp_path / "a.jsonl", rows[:2900]), jsonl(tmp_path / "b.jsonl", rows[2900:])
    sources = [source(first), source(second, "auto")]
    data = policies(on_long="drop", deduplicate="near")
    many = prepare_rows(tmp_path, sources, renderer, data, 120)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    one = prepare_rows(tmp_path, sources, renderer, data, 120)
    assert (one.prepared.columns.row_signature == many.prepared.columns.row_signature).all()
    assert (one.kept, one.rejects) == (many.kept, many.rejects)
    assert len(many.kept) + len(many.rejects) == 3100
    assert {r.code for r in many.rejects} == {"too-long", "bad-row"}
    assert [k.example for k in many.kept[-50:]] == [renderer.example(k.messages) for k in many.kept[-50:]]


@pytest.mark.slow
def test_a_process_that_dies_is_said(tmp_path, renderer):
    def chunks():
        for number in range(40):
            if number == 12:
                for child in multiprocessing.active_children():
                    child.kill()
            yield Chunk(0, "rows.jsonl", "qa", {}, [SourceRow(number, QA[0])])

    with pytest.raises(TunebuildError, match="a process that tokenizes rows was killed"):
        list(tokenise_in_order(chunks(), Tokenizer(renderer, 200, shorten=False, folded=False), 2))


@pytest.mark.slow
def test_processes_end_with_a_parent_that_is_killed(tmp_path, renderer):
    script = """
import pickle, sys, multiprocessing
from tunebuild.data.reading import SourceRow
from tunebuild.data.tokenize import Chunk, Tokenizer
from tunebuild.data.workers import tokenise_in_order

if __name__ == "__main__":
    tokenizer = pickle.load(sys.stdin.buffer)
    chunk = Chunk(0, "r", "qa", {}, [SourceRow(1, {"question": "q", "answer": "a"})])
    for number, _ in enumerate(tokenise_in_order(iter([chunk] * 50), tokenizer, 2)):
        if number == 40:
            print(*[child.pid for child in multiprocessing.active_children()], flush=True)
            sys.stdin.buffer.read()
            import time; time.sleep(60)
"""
    (tmp_path / "parent.py").write_text(script)
    command = [sys.executable, str(tmp_path / "parent.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        pickle.dump(Tokenizer(renderer, 200, shorten=False, folded=False), parent.stdin)
        parent.stdin.flush()
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(workers) == 2
    deadline = time.monotonic() + 20
    while any(
        Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() for pid in workers
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_stage_writes_what_the_renderer_says(tmp_path, renderer):
    store = Store(tmp_path / "store")
    tree = store.ensure(stage(tmp_path, renderer, QA, eval=EvalSplit(fraction=0.1)), Silent())
    with pa.OSFile(str(tree.path("train.arrow"))) as file:
        table = pa.ipc.open_stream(file).read_all()
    assert table.num_rows == 18
    checks = [json.loads(line) for line in tree.path("prompt", "checks.jsonl").read_text().splitlines()]
    assert len(checks) == 18
    for row, check in zip(table.to_pylist(), checks, strict=True):
        prompt = renderer.prompt_ids(check["messages"])
        assert row["input_ids"][: len(prompt)] == prompt
        assert row["labels"][: len(prompt)] == [-100] * len(prompt)
        assert renderer.decode(row["labels"][len(prompt) :]) == check["expected"]
        assert row["labels"][-1] == renderer.turn_end_id
    served = load_prompt(tree.path("prompt"))
    vectors = load_golden(tree.path("prompt", "golden.json"))
    assert served.digest == renderer.digest
    assert check_golden(served, vectors) is None
    assert "data-1" in {v.name for v in vectors}
    assert json.loads(tree.path("stats.json").read_text())["rows"] == {"train": 18, "eval": 2, "rejected": 0}


def test_as_many_questions_travel_as_may(tmp_path, renderer, monkeypatch):
    monkeypatch.setattr("tunebuild.data.run.MAX_CHECKS", 19)
    tree = Store(tmp_path / "store").ensure(stage(tmp_path, renderer, QA), Silent())
    checks = [json.loads(line) for line in tree.path("prompt", "checks.jsonl").read_text().splitlines()]
    assert [check["expected"] for check in checks] == [row["answer"] for row in QA[:19]]


def test_one_byte_of_data_makes_another_key(tmp_path, renderer):
    store = Store(tmp_path / "store")
    store.ensure(stage(tmp_path, renderer, QA), Silent())
    assert store.find(stage(tmp_path, renderer, QA)) is not None
    changed = stage(tmp_path, renderer, [{**QA[0], "answer": "The answer is 0!"}, *QA[1:]])
    assert store.find(changed) is None
    assert store.why(changed).field == "sources[0].digest"


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path, renderer):
    from dataclasses import replace

    small = replace(stage(tmp_path, renderer, QA), vocabulary_size=10)
    with pytest.raises(TunebuildError, match="do not belong together"):
        Store(tmp_path / "store").ensure(small, Silent())


def test_a_base_without_chat_template_needs_one_named(tmp_path):
    bare = families.save(families.byte_level(), tmp_path / "bare", chat_template=None)
    with pytest.raises(TunebuildError, match="no chat template of its own"):
        build_renderer(PromptSpec(), bare, tmp_path)
    assert build_renderer(PromptSpec(template="qa"), bare, tmp_path).template.name == "qa"


def test_formats_are_the_schemas():
    assert {*FORMATS, "auto"} == set(DataSource.model_fields["format"].annotation.__args__)
