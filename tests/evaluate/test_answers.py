"""Written answers: what is asked, what is answered, what the figures say."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM, GenerationConfig, GPT2Config, GPT2LMHeadModel

from support.models import save_base
from support.rows import PAIRS
from tunebuild.errors import TunebuildError
from tunebuild.evaluate.by_source import by_source
from tunebuild.evaluate.generate import generate
from tunebuild.evaluate.metrics import check_gates
from tunebuild.evaluate.models import Logprobs
from tunebuild.evaluate.run import _Asked, _general_rows, masked
from tunebuild.evaluate.stage import SAMPLES, EvaluateStage, closer_strategy, read_metrics
from tunebuild.evaluate.texts import Question, measure_texts, questions_of
from tunebuild.merge.stage import MergeStage
from tunebuild.models.base_model import BaseModel
from tunebuild.spec.evaluation import EvaluationSpec
from tunebuild.spec.gates import GatesSpec, ShareAtLeast
from tunebuild.store import Silent
from tunebuild.store.tree import scan


def row(*labels):
    return {"input_ids": list(range(1, len(labels) + 1)), "labels": list(labels)}


def test_the_last_answer_is_what_is_asked_for():
    rows = [row(-100, 2, 3, -100, 5, 6, 7), row(1, 2, 3), row(-100, -100, 3, -100)]
    found = questions_of(rows, 10, {7})
    assert [(q.prompt, q.expected) for q in found] == [([1, 2, 3, 4], [5, 6]), ([1, 2], [3])]
    assert questions_of(rows, 0, {7}) == []
    assert len(questions_of([row(-100, 2)] * 100, 16, ())) == 16
    assert len(questions_of([row(-100, 2)] * 16, 16, ())) == 16


def said(*rows):
    return Logprobs(torch.log(torch.tensor(rows)))


def test_figures_by_source():
    rows = [{**row(-100, 0), "index": 0}, {**row(-100, 1, 1), "index": 2}]
    base, tuned = said([0.5, 0.5], [0.5, 0.5], [0.5, 0.5]), said([0.9, 0.1], [0.2, 0.8], [0.8, 0.2])
    asked = [Question([1], [2], 2), Question([1], [2], 1)]
    texts = [{"expected": "yes", "tuned": "yes"}, {"expected": "yes", "tuned": "no"}]
    found = by_source([3, 10, 3], rows, base, tuned, asked, texts)
    assert list(found) == ["3", "10"]
    a, b = found["3"], found["10"]
    assert (a["rows"], a["answers"], b["rows"], b["answers"]) == (2, 1, 0, 1)
    assert a["base_loss"] == pytest.approx(float(torch.tensor(0.5).log().neg()))
    # Over tokens, not over rows: the longer row counts twice.
    assert a["eval_loss"] == pytest.approx(float(-torch.tensor([0.9, 0.8, 0.2]).log().mean()))
    assert a["eval_accuracy"] == pytest.approx(2 / 3)
    assert (a["exact_match"], b["exact_match"]) == (1, 0)
    assert "eval_loss" not in b


def test_figures_of_texts():
    same = measure_texts(["Die Tür ist zu.", " yes\n"], ["Die Tür ist zu.", "yes"])
    assert same == {"exact_match": 1, "token_f1": 1, "rouge_l": 1}
    assert measure_texts(["no"], ["yes"]) == {"exact_match": 0, "token_f1": 0, "rouge_l": 0}
    # Two of three words, one of them moved: ROUGE-L minds the order, F1 does not.
    moved = measure_texts(["z Y x"], ["y, z w"])
    assert moved["exact_match"] == 0
    assert moved["token_f1"] == pytest.approx(2 / 3)
    assert moved["rouge_l"] == pytest.approx(1 / 3)
    assert measure_texts(["Ответ: нет"], ["ответ нет"])["rouge_l"] == 1


def test_many_at_once_are_answered_as_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr("tunebuild.evaluate.generate._ROWS", 5)
    model = AutoModelForCausalLM.from_pretrained(save_base("llama", tmp_path / "base")).eval()
    prompts = [[5 + n, *range(20, 20 + n % 7)] for n in range(13)]
    stops = {0, 1, 2, *range(100, 110)}
    together = generate(model, prompts, 6, stops)
    for prompt, answer in zip(prompts, together, strict=True):
        ids = list(prompt)
        for _ in range(6):
            with torch.no_grad():
                token = int(model(torch.tensor([ids])).logits[0, -1].argmax())
            if token in stops:
                break
            ids.append(token)
        assert answer == ids[len(prompt) :]
    assert len({len(a) for a in together}) > 1, "some should stop early, or the test shows nothing"


@pytest.fixture(scope="module")
def gpt():
    """A model with 16 learned positions."""
    torch.manual_seed(0)
    config = GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=64, n_positions=16, initializer_range=0.3)
    return GPT2LMHeadModel(config).eval()


def test_an_answer_ends_where_the_model_has_no_more_positions(gpt):
    prompts = [list(range(1, 1 + length)) for length in (4, 15, 16, 17, 9)]
    unstopped = generate(gpt, prompts, 40, (), positions=16)
    assert [len(answer) for answer in unstopped] == [12, 1, 0, 0, 7]
    for prompt, answer in zip(prompts, unstopped, strict=True):
        short = generate(gpt, [prompt], min(3, len(answer)), ()) if answer else [[]]
        assert short == [answer[:3]]
    # What it is for: one more is not to be had.
    with pytest.raises(IndexError):
        generate(gpt, [prompts[0]], 14, ())


def test_tokens_before_a_prompt_take_positions_from_its_answer(gpt):
    tuned = get_peft_model(gpt, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)).eval()
    assert [len(a) for a in generate(tuned, [[1, 2, 3]], 40, (), positions=16 - 5)] == [8]
    with pytest.raises(IndexError):
        generate(tuned, [[1, 2, 3]], 40, ())


def test_no_general_prompt_takes_another_ones_place():
    prompts = [[n] for n in range(20)]
    asked = _Asked(None, [], [str(n) for n in range(20)], prompts, 100)
    rows = _general_rows(asked, [[7] * 100] * 19 + [[8, 9]])
    assert [row["input_ids"][0] for row in rows] == list(range(20))
    assert rows[-1] == {"input_ids": [19, 8, 9], "labels": [-100, 8, 9]}
    assert sum(label != -100 for row in rows for label in row["labels"]) <= 512


def test_texts_are_shown_without_what_the_data_stage_masks():
    sample = {"prompt": "Whom do I ask?", "expected": "jane@acme-corp.io", "base": "", "tuned": "Jane"}
    (shown,) = masked({"samples": [sample]})["samples"]
    assert shown == {**sample, "expected": "jane... (17 characters)"}


@pytest.mark.parametrize("adapted", [False, True])
def test_options_that_come_with_a_model_change_no_answer(tmp_path, adapted):
    model = AutoModelForCausalLM.from_pretrained(save_base("llama", tmp_path / "base")).eval()
    prompt = [5, 20, 21, 22]
    ids = list(prompt)
    for _ in range(8):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    model.generation_config = GenerationConfig(
        suppress_tokens=ids[4:6], repetition_penalty=5.0, no_repeat_ngram_size=1, do_sample=True, top_k=3
    )
    if adapted:
        model = get_peft_model(model, LoraConfig(r=2, task_type="CAUSAL_LM")).eval()
    assert generate(model, [prompt], 8, {max(set(range(100)) - set(ids))}) == [ids[4:]]


@dataclass
class Notes:
    """Keeps what is said."""

    said: list[str] = field(default_factory=list)

    def step(self, done, total, note=""):
        pass

    def say(self, text):
        self.said.append(text)


def evaluated(trained, strategy, alternative=None, **options):
    store, settings, base, data, adapter = trained
    merged = store.ensure(MergeStage(strategy, base, adapter), Silent())
    notes = Notes()
    strategies = (strategy, alternative) if alternative else (strategy,)
    stage = EvaluateStage(settings, EvaluationSpec(**options), (), base, strategies, data, adapter, merged)
    return store.ensure(stage, notes), notes.said


def test_answers_of_base_and_tuned_stand_side_by_side(trained):
    output, said = evaluated(trained, "dequantized", regression=["Who wrote Hamlet?"])
    figures = read_metrics(output)
    assert min(figures["token_f1"], figures["rouge_l"]) > 0.9
    assert figures["base_exact_match"] == 0
    assert max(figures["base_token_f1"], figures["base_rouge_l"]) < 0.5
    assert any("3 written answers: exact" in line for line in said)
    texts = json.loads(output.path(SAMPLES).read_text())
    assert [s["expected"] for s in texts["samples"]] == [answer for _, answer in PAIRS[:3]]
    assert all(s["expected"] != s["base"] for s in texts["samples"])
    right = [s["tuned"] == s["expected"] for s in texts["samples"]]
    assert figures["exact_match"] == sum(right) / 3 > 0
    assert all(question in s["prompt"] for s, (question, _) in zip(texts["samples"], PAIRS, strict=False))
    assert texts["general"][-1]["prompt"] == "Who wrote Hamlet?"
    # A model trained on ten answers until it repeats them no longer answers as its base.
    assert figures["regression_kl"] > 0.1
    assert 0 <= figures["regression_top1"] < 1
    check_gates(GatesSpec(rouge_l=ShareAtLeast(min=0.9)), figures)
    with pytest.raises(TunebuildError, match=r"gates\.regression_top1"):
        check_gates(GatesSpec(regression_top1=ShareAtLeast(min=1)), figures)


def test_without_samples_nothing_is_written_and_its_gates_refuse(trained):
    output, _ = evaluated(trained, "dequantized", samples=0)
    figures = read_metrics(output)
    assert not {"exact_match", "regression_kl"} & figures.keys()
    assert json.loads(output.path(SAMPLES).read_text()) == {"samples": [], "general": []}
    with pytest.raises(TunebuildError, match="was not measured"):
        check_gates(GatesSpec(exact_match=ShareAtLeast(min=0)), figures)


def test_auto_keeps_the_closer_merge(trained):
    output, _ = evaluated(trained, "dequantized", "original", samples=0)
    record = json.loads(output.path("metrics.json").read_text())
    assert record["strategies"]["original"] > 10 * record["strategies"]["dequantized"]
    assert closer_strategy(output) == "dequantized"


def test_what_is_merged_in_memory_is_what_is_written(trained, tmp_path):
    store, settings, base, *rest = trained
    rounded = AutoModelForCausalLM.from_pretrained(base.directory, dtype=torch.bfloat16)
    shutil.copytree(base.directory, tmp_path / "base")
    rounded.save_pretrained(tmp_path / "base")
    rounded_base = BaseModel(tmp_path / "base", scan(tmp_path / "base").files)
    trained = (store, settings, rounded_base, *rest)
    both, _ = evaluated(trained, "dequantized", "original", samples=0)
    written, _ = evaluated(trained, "original", samples=0)
    strategies = json.loads(both.path("metrics.json").read_text())["strategies"]
    assert read_metrics(written)["merge_kl"] == strategies["original"]
