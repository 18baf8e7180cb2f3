"""The report and the card say what the stages recorded, to people and to the hub, and nothing else."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st

from tunebuild.report.curves import HEIGHT, WIDTH, Curve
from tunebuild.report.facts import Records
from tunebuild.report.render import figure, render_card, render_report
from tunebuild.report.summary import as_text, render_figures
from tunebuild.spec import Spec
from tunebuild.spec.canonical import effective
from tunebuild.store.tree import scan

METRICS = {
    "base_loss": 3.5,
    "eval_loss": 1.25,
    "exact_match": 0.75,
    "base_exact_match": 0.0,
    "merge_kl": 4.4e-5,
    "merge_top1": 0.996,
    "merge_lost": 0.0,
    "training_kl": 2.5,
    "regression_kl": 0.6,
}
SOURCES = ["a.jsonl", "faq.jsonl", *(f"{n}.jsonl" for n in range(8)), "more.jsonl"]
SAMPLE = {
    "prompt": "Q <b>&</b>?",
    "base": "x\x07y|z",
    "tuned": "<script>alert(1)</script>",
    "expected": "*E*",
}


PROOF = {
    "strategy": "dequantized", "updated": 2, "whole": 0, "held": 1, "kept": 6, "adapter_tensors": 4,
    "worst": "a.b", "worst_share": 0.99, "probe": "a.b", "probe_share": 0.25, "lost": "c.d",
    "lost_share": 0.0345,
}  # fmt: skip


@pytest.fixture
def records(tmp_path):
    stats = {
        "rows": {"train": 1234, "eval": 20, "rejected": 3},
        "rejected": {"too-long": 2, "duplicate": 1},
        "tokens": 98765,
        "supervised_share": 0.5,
        "length": {"min": 1, "median": 37, "p95": 42, "max": 45},
        "unused": [{"source": 0, "kind": "column", "count": 3, "words": "column '<x>' is not used (3 rows)"}],
    }
    result = {
        "method": "qlora", "steps": 4, "device": "cuda", "compute_dtype": "bfloat16",
        "trainable_parameters": 217088, "final_loss": 0.5
    }  # fmt: skip
    curve = [{"step": n, "loss": 8.0 / n} for n in (1, 2, 3, 4)] + [{"step": 4, "eval_loss": 2.5}]
    contents = {
        "data": {"stats.json": stats},
        "train": {"result.json": result},
        "merge": {"merge.json": {"tensors": 9, "updated": 2, "relative_change": {"a.b": 0.25, "c.d": 0.5}}},
        "evaluate": {
            "metrics.json": {
                "metrics": METRICS,
                "rows": 20,
                "available": 2000,
                "of": "eval.arrow",
                "strategy": "dequantized",
                "strategies": {"dequantized": 4.4e-5, "original": 0.9},
                "proof": PROOF,
            },
            "samples.json": {"samples": [SAMPLE] * 7, "general": [SAMPLE]},
        },
    }
    for stage, files in contents.items():
        (tmp_path / stage).mkdir()
        for name, value in files.items():
            (tmp_path / stage / name).write_text(json.dumps(value))
    (tmp_path / "train" / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in curve))
    return Records(*(scan(tmp_path / stage) for stage in ("data", "train", "merge", "evaluate")))


def provenance(**model):
    spec = {
        "apiVersion": "tunebuild/v1",
        "name": "support-bot",
        "description": "Answers <fast>.",
        "data": {"train": [{"path": "a.jsonl"}], "eval": {"fraction": 0.1}},
        "model": {"base": "org/model", **model},
        "gates": {"eval_loss": {"max": 1.5}},
    }
    return {"spec": effective(Spec.model_validate(spec)), "inputs": {"data": {"seed": 7}}, "sources": SOURCES}


class Page(HTMLParser):
    """What a browser would make of it: open tags, references to elsewhere, and the text."""

    VOID = ("meta", "line", "br")

    def __init__(self, source):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_says_what_was_recorded_and_needs_nothing_else(records):
    source = render_report(records.read(), provenance())
    page = Page(source)
    assert page.open == []
    for said in (
        "1,234",
        "3 (2 too-long, 1 duplicate)",
        "98,765",
        "1.250",
        "75.0 %",
        "4.4e-05",
        "0.9",
        "c.d",
    ):
        assert said in page.text
    assert "✓ at most 1.5" in page.text
    assert "seed" in page.text
    assert "On 20 of 2,000 rows that were held out; answers were written out for 7." in page.text
    assert not any({"src", "href"} & set(attributes) for _, attributes in page.tags)
    assert "url(" not in source
    assert "script" not in {tag for tag, _ in page.tags}
    assert SAMPLE["tuned"] in page.text
    assert SAMPLE["prompt"] in page.text
    assert "\x07" not in source
    assert page.text.count("alert(1)") == 8
    assert "Memory" not in page.text


def test_what_no_prompt_shows_of_the_rows_is_in_report_and_card(records):
    facts = records.read()
    report, card = render_report(facts, provenance()), render_card(facts, provenance())
    assert "a.jsonl: column &#39;&lt;x&gt;&#39; is not used (3 rows)" in report
    assert "\n- a.jsonl: column '&lt;x>' is not used (3 rows)\n" in card
    assert "3 rows were not used.\n\n- a.jsonl" in card


def test_a_gate_that_is_not_kept_is_marked(records):
    facts = records.read()
    for loss in (1.75, float("nan")):
        beyond = replace(facts, metrics={**facts.metrics, "eval_loss": loss})
        assert "✗ at most 1.5" in Page(render_report(beyond, provenance())).text


def test_memory_is_shown_where_it_was_recorded(records):
    (records.train.root / "memory.json").write_text(
        json.dumps(
            {
                "planned": {"base_weights": 4_100_000_000},
                "planned_peak": 9e9,
                "measured_peak": 5e9,
                "device": "cuda",
            }
        )
    )
    with_memory = replace(records, train=scan(records.train.root))
    assert with_memory.files.keys() - records.files.keys() == {"train/memory.json"}
    text = Page(render_report(with_memory.read(), provenance())).text
    for said in ("base weights", "4.1 GB", "9 GB", "peak on cuda"):
        assert said in text
    # What differs between two trainings that come to the same adapter would make two images of them.
    assert "5 GB" not in text


def test_sources_are_told_apart_where_there_are_some(records):
    facts = records.read()
    one = {"rows": 3, "answers": 0, "eval_loss": 1.5, "base_loss": 2.0, "eval_accuracy": 0.5}
    two = {"rows": 0, "answers": 2, "exact_match": 0.5, "rouge_l": 0.75, "token_f1": 1}
    sources = {"1": one, "10": two}
    told = Page(
        render_report(replace(facts, evaluated={**facts.evaluated, "sources": sources}), provenance())
    )
    assert all(said in told.text for said in ("faq.jsonl", "more.jsonl", "0.750"))
    alone = {**facts.evaluated, "sources": {"1": one}}
    assert "faq.jsonl" not in Page(render_report(replace(facts, evaluated=alone), provenance())).text


def test_tasks_have_a_table_with_their_gates(records):
    facts = records.read()
    assert "lm-eval" not in render_report(facts, provenance()) + render_card(facts, provenance())
    tasks = {"faq": {"acc": {"base": 0.125, "tuned": 0.75}, "em,strict": {"base": 0.0, "tuned": 0.5}}}
    facts = replace(facts, evaluated={**facts.evaluated, "tasks": tasks})
    told = provenance()
    told["spec"]["gates"]["tasks"] = {"faq": {"acc": {"min": 0.8, "max": None}}}
    page = Page(render_report(facts, told))
    assert page.open == []
    assert all(said in page.text for said in ("faq acc", "0.125", "0.750", "✗ at least 0.8", "em,strict"))
    assert "| faq | acc | 0.125 | 0.750 | at least 0.8 |" in render_card(facts, told)


@pytest.mark.parametrize(("method", "quantized"), [("lora", False), ("qlora", True)])
def test_the_method_is_the_one_that_was_used(records, method, quantized):
    facts = records.read()
    facts = replace(
        facts,
        result={**facts.result, "method": method},
        evaluated={**facts.evaluated, "strategies": {"dequantized": 1e-4}},
    )
    told = provenance()
    told["spec"] = told["spec"] | {"tuning": {**told["spec"]["tuning"], "method": "auto"}}
    page, card = Page(render_report(facts, told)).text, render_card(facts, told)
    assert f"Tuned by {method} from" in page
    assert f"Tuned by {method} from" in card
    assert ModelCard(card).data.tags == ["tunebuild", method, "merged"]
    assert ("The base was not quantized" in page) is not quantized


def test_an_adapter_that_was_not_merged_is_told_of(records):
    facts = records.read()
    facts = replace(
        facts,
        merge={"tensors": 9, "updated": 0, "relative_change": {}},
        evaluated={**facts.evaluated, "strategy": "none", "strategies": {"none": 0.01}},
    )
    page, card = Page(render_report(facts, provenance())), render_card(facts, provenance())
    assert page.open == []
    assert "the server puts the adapter on top" in page.text
    assert "What moved most" not in page.text
    data = ModelCard(card).data
    assert (data.library_name, data.tags) == ("peft", ["tunebuild", "qlora", "adapter"])
    assert data.base_model_relation == "adapter"
    assert "merged" not in card.split("---", 2)[2]


def test_how_long_it_took_makes_no_difference(records):
    facts = records.read()
    slower = replace(facts, result={**facts.result, "seconds": 99.5, "tokens_per_second": 3, "resumed": True})
    assert render_report(facts, provenance()) == render_report(slower, provenance())
    assert render_card(facts, provenance()) == render_card(slower, provenance())


def test_equal_records_give_equal_bytes(records):
    assert render_report(records.read(), provenance()) == render_report(records.read(), provenance())
    assert render_card(records.read(), provenance()) == render_card(records.read(), provenance())


def test_a_summary_fits_on_one_screen(records):
    known = provenance(revision="abc")
    settings = {
        "prompt_digest": "sha256:" + "0" * 64, "limits": {"context": 256}, "device": "cpu", "dtype": "auto",
        "port": 8080,
    }  # fmt: skip
    known["inputs"]["image"] = {"reference": "example.com/support-bot:1", "settings": settings}
    figures = json.loads(render_figures(records.read(), known))
    text = as_text(known, figures, ("digest", "sha256:abc"), "dist/support-bot.tar")
    assert 12 <= len(text.splitlines()) <= 18
    for said in (
        "name      support-bot: Answers <fast>.",
        "digest    sha256:abc",
        "base      org/model at abc",
        "rows      1,234 trained on, 20 held out, 3 not used; 98,765 tokens, from a.jsonl, ",
        "training  qlora, 4 steps, LoRA r 16, alpha 32; merge: dequantized",
        "docker load -i dist/support-bot.tar && docker run --rm -p 8080:8080 example.com/support-bot:1",
    ):
        assert said in text
    assert "docker load" not in as_text(known, figures, ("digest", "sha256:abc"), "")
    known["spec"]["tuning"]["peft"] = {"type": "ia3"}
    text = as_text(known, {**figures, "method": "peft"}, ("digest", "sha256:abc"), "")
    assert "training  peft, 4 steps, ia3; merge" in text


def test_the_hub_reads_the_card(records):
    card = ModelCard(render_card(records.read(), provenance()))
    assert card.data.base_model == "org/model"
    assert card.data.pipeline_tag == "text-generation"
    assert card.data.tags == ["tunebuild", "qlora", "merged"]
    assert card.data.model_name == "support-bot"
    assert {(r.metric_type, r.metric_value) for r in card.data.eval_results} == {
        ("eval_loss", 1.25),
        ("exact_match", 0.75),
    }
    assert all(r.task_type == "text-generation" for r in card.data.eval_results)


def test_a_card_names_no_base_that_the_hub_does_not_have_and_no_figures_of_trained_rows(records):
    trained_on = replace(records.read(), evaluated={**records.read().evaluated, "of": "train.arrow"})
    card = ModelCard(render_card(trained_on, provenance(base="./base")))
    assert card.data.base_model is None
    assert card.data.eval_results is None
    assert "training rows, as none were held out" in card.text


def test_texts_stay_in_their_cells(records):
    text = render_card(records.read(), provenance())
    (row,) = {line for line in text.splitlines() if "alert(1)" in line}
    assert len(re.findall(r"(?<!\\)\|", row)) == 5
    assert "<" not in row
    assert r"\*E\*" in row


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("merge_kl", 4.4e-5, "4.4e-05"),
        ("merge_kl", 0.0, "0.000"),
        ("base_perplexity", 3699.2, "3,699"),
        ("exact_match", 0.123, "12.3 %"),
        ("merge_lost", 7.9e-5, "0.0079 %"),
        ("merge_lost", 0.0, "0.0 %"),
    ],
)
def test_figures_for_people(name, value, text):
    assert figure(name, value) == text


losses = st.lists(st.floats(0, 1e6), min_size=1, max_size=2000)


@given(losses, losses)
def test_curves_stay_inside_their_frame(train, held_out):
    curve = Curve(tuple(enumerate(train, 1)), tuple(enumerate(held_out, 1)))
    assert curve.ticks[0] == 0
    assert curve.ticks[-1] >= max(train + held_out) * (1 - 1e-9)
    assert 2 <= len(curve.ticks) <= 7
    for line in (curve.line, curve.smooth, curve.held_out_line):
        points = [tuple(map(float, point.split(","))) for point in line.split()]
        assert all(0 <= x <= WIDTH and -0.02 <= y <= HEIGHT for x, y in points)
    assert len(curve.line.split()) <= 322
    assert curve.line.split()[-1] == f"{curve.x(len(train)):g},{curve.y(train[-1]):g}"


def test_a_training_without_evaluation_has_a_curve():
    curve = Curve(((1, 2.0),), ())
    assert (curve.held_out_line, curve.dots) == ("", [])
    assert curve.ticks == (0, 0.5, 1, 1.5, 2)


def test_a_model_without_an_adapter_is_said_to_have_none(records):
    facts = records.read()
    full = replace(facts, result={**facts.result, "method": "full"})
    card, page = render_card(full, provenance()), Page(render_report(full, provenance()))
    assert "All weights trained from `org/model` and written as plain" in card
    assert "LoRA r 16" in render_card(facts, provenance())
    assert "LoRA" not in card
    assert "base and adapter apart" not in page.text


def test_the_proof_of_each_tensor_is_in_report_card_and_figures(records):
    facts, made_of = records.read(), provenance()
    for text in (render_report(facts, made_of), render_card(facts, made_of)):
        assert "2 are the base plus the trained update within the rounding of their type" in text
        assert "1 are the base as 4 bits hold it" in text
        assert "Each of the 4 trained tensors is used exactly once" in text
        assert "0.99 of what rounding allows, in a.b" in text
    assert json.loads(render_figures(facts, made_of))["proof"] == PROOF


def test_a_build_without_a_proof_has_a_report(records):
    file = records.evaluate.path("metrics.json")
    recorded = json.loads(file.read_text())
    del recorded["proof"]
    file.write_text(json.dumps(recorded))
    facts = records.read()
    assert "Every tensor was checked" not in render_report(facts, provenance())
