"""Tasks of lm-eval: what a spec may name, and what base and tuned model reach."""

from __future__ import annotations

import json
import math
from statistics import mean

import pytest
import torch
from tokenizers import Tokenizer

from support.models import save_base
from support.rows import PAIRS, write_rows
from tunebuild.errors import TunebuildError
from tunebuild.evaluate.harness import do_tasks
from tunebuild.evaluate.metrics import check_gates
from tunebuild.evaluate.models import load_merged, load_trained
from tunebuild.evaluate.stage import EvaluateStage, read_metrics
from tunebuild.evaluate.tasks import read_tasks, require_tasks
from tunebuild.extras import install_command
from tunebuild.merge.stage import MergeStage
from tunebuild.models.base_model import BaseModel
from tunebuild.prompt import load_prompt, save_prompt
from tunebuild.spec import Spec
from tunebuild.spec.checks import broken_rules
from tunebuild.spec.evaluation import EvaluationSpec
from tunebuild.spec.folder import Folder
from tunebuild.spec.gates import Bounds, GatesSpec
from tunebuild.spec.tuning import PeftSpec, TuningSpec
from tunebuild.store import Silent, Store
from tunebuild.store.digest import digest_file, digest_json
from tunebuild.store.tree import scan
from tunebuild.train.loop.run import train_adapter
from tunebuild.train.plan.settings import TrainSettings

WITHOUT = f"lm-eval is not installed: {install_command(('lm-eval',))}"
CHOICE = """\
task: choice
dataset_path: json
dataset_kwargs: {data_files: {test: rows/items.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{prompt}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
target_delimiter: ""
metric_list: [{metric: acc}]
"""
WRITTEN = """\
task: written
dataset_path: json
dataset_kwargs: {data_files: {test: [rows/items.jsonl]}}
test_split: test
output_type: generate_until
doc_to_text: "{{prompt}}"
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 24, do_sample: false}
metric_list: [{metric: exact_match}]
"""


def write_tasks(directory, prompts, **files):
    """A directory of tasks and their documents beside a spec."""
    (directory / "tasks" / "rows").mkdir(parents=True)
    choices = [answer for _, answer in PAIRS]
    rows = [{"prompt": p, "choices": choices, "answer": n} for n, p in enumerate(prompts)]
    (directory / "tasks" / "rows" / "items.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    for name, text in files.items():
        (directory / "tasks" / f"{name}.yaml").write_text(text)


def read(directory, *names, gated=()):
    return read_tasks(names, directory, digest_file, gated)


def test_base_and_tuned_model_do_tasks_that_stand_beside_the_spec(trained, tmp_path):
    pytest.importorskip("lm_eval", reason=WITHOUT)
    store, settings, base, data, adapter = trained
    renderer = load_prompt(data.path("prompt"))
    prompts = [renderer.prompt_text([{"role": "user", "content": question}]) for question, _ in PAIRS]
    write_tasks(tmp_path, prompts, choice=CHOICE, written=WRITTEN)
    merged = store.ensure(MergeStage("dequantized", base, adapter), Silent())

    def figures(limit):
        asked = EvaluationSpec(samples=0, tasks=("./tasks",), task_limit=limit)
        tasks = read(tmp_path, "./tasks")
        stage = EvaluateStage(settings, asked, tasks, base, ("dequantized",), data, adapter, merged)
        output = store.ensure(stage, Silent())
        return read_metrics(output), json.loads(output.path("metrics.json").read_text())["tasks"]

    metrics, tasks = figures(None)
    assert tasks["choice"]["acc"]["base"] <= 0.4
    assert tasks["choice"]["acc"]["tuned"] == metrics["tasks.choice.acc"] >= 0.9
    assert tasks["written"]["exact_match"]["base"] == 0
    assert metrics["tasks.written.exact_match"] >= 0.5
    one = figures(1)[1]["choice"]["acc"]
    assert {one["base"], one["tuned"]} <= {0.0, 1.0}

    check_gates(GatesSpec(tasks={"choice": {"acc": Bounds(min=0.9)}}), metrics)
    with pytest.raises(TunebuildError, match=r"gates\.tasks\.choice\.acc: .* at most 0\.1 is allowed"):
        check_gates(GatesSpec(tasks={"choice": {"acc": Bounds(min=0, max=0.1)}}), metrics)
    with pytest.raises(TunebuildError, match=r"acc_norm: was not measured; there are: .*choice\.acc"):
        check_gates(GatesSpec(tasks={"choice": {"acc_norm": Bounds(min=0)}}), metrics)


LIKELIHOOD = """\
task: likelihood
dataset_path: json
dataset_kwargs: {data_files: {test: rows/items.jsonl}}
test_split: test
output_type: loglikelihood
doc_to_text: "{{prompt}}"
doc_to_target: "{{choices[answer]}}"
target_delimiter: ""
metric_list: [{metric: perplexity, aggregation: perplexity, higher_is_better: false}]
"""


@pytest.mark.parametrize("kind", ["prefix_tuning", "prompt_tuning"])
def test_virtual_tokens_are_no_tokens_of_a_task(tmp_path, kind):
    """One text is longer than what they leave of the positions, so its start has to give way."""
    pytest.importorskip("lm_eval", reason=WITHOUT)
    directory = save_base("llama", tmp_path / "base", max_position_embeddings=64)
    renderer = write_rows(directory, tmp_path / "data", held_out=True)
    save_prompt(tmp_path / "data" / "prompt", renderer, directory)
    peft = PeftSpec(type=kind, virtual_tokens=6)
    tuning = TuningSpec(method="peft", peft=peft, epochs=8, batch_size=4, learning_rate=0.05, max_length=64)
    settings = TrainSettings(tuning, "cpu", "float32")
    for name in ("work", "trained"):
        (tmp_path / name).mkdir()
    places = {"work": tmp_path / "work", "out": tmp_path / "trained", "progress": Silent()}
    train_adapter(settings, data=tmp_path / "data", base=directory, **places)
    texts = ["What is item 3?", "The" * 12, "item" + " item" * 99]
    write_tasks(tmp_path, texts, likelihood=LIKELIHOOD)

    base, data, trained = (scan(tmp_path / name) for name in ("base", "data", "trained"))
    base = BaseModel(directory, base.files)
    store, asked = Store(tmp_path / "store"), EvaluationSpec(samples=0, tasks=("./tasks",))
    merged = store.ensure(MergeStage("none", base, trained), Silent())
    tasks = read(tmp_path, "./tasks")
    stage = EvaluateStage(settings, asked, tasks, base, ("none",), data, trained, merged)
    found = store.ensure(stage, Silent()).path("metrics.json").read_text()

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tuned = load_merged(directory, settings, tmp_path / "trained" / "adapter")

    def likelihood(model, text, answer):
        context = len(tokenizer.encode(text).ids)
        ids = tokenizer.encode(text + answer).ids
        kept = torch.tensor([ids[-(64 - 6 + 1) :]])
        with torch.no_grad():
            logits = model(input_ids=kept[:, :-1]).logits[0, 1 - kept.shape[1] :]
        answered = slice(context - len(ids), None)
        chosen = logits.log_softmax(-1).gather(-1, kept[0, 1:, None])
        return float(chosen[answered].sum())

    def perplexity(model):
        pairs = zip(texts, (answer for _, answer in PAIRS), strict=False)
        return math.exp(-mean(likelihood(model, text, answer) for text, answer in pairs))

    reached = json.loads(found)["tasks"]["likelihood"]["perplexity"]
    assert reached["tuned"] == pytest.approx(perplexity(tuned), rel=1e-3)
    assert reached["base"] == pytest.approx(perplexity(tuned.get_base_model()), rel=1e-3)
    assert reached["tuned"] != pytest.approx(reached["base"], rel=0.01)


def key(tasks):
    return digest_json([task.inputs() for task in tasks])


def test_a_task_is_its_contents_wherever_it_stands(tmp_path):
    for name in ("one", "two"):
        write_tasks(tmp_path / name, ["a", "b"], choice=CHOICE)
    one, two = (read(tmp_path / name, "./tasks/choice.yaml") for name in ("one", "two"))
    assert key(one) == key(two) == key(read(tmp_path / "one", "./tasks"))
    (tmp_path / "two" / "tasks" / "rows" / "items.jsonl").write_text("{}\n")
    assert key(read(tmp_path / "two", "./tasks")) != key(one)
    (tmp_path / "one" / "tasks" / "choice.yaml").write_text(CHOICE.replace("acc}", "acc_norm}"))
    assert key(read(tmp_path / "one", "./tasks")) != key(one)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("task: [", "cannot be read"),
        (CHOICE + "process_docs: !function code.run\n", "runs no code"),
        (CHOICE + "include: other.yaml\n", "has 'include'"),
        (CHOICE.replace("task: choice", "group: x"), "names no task"),
        (CHOICE.replace("_path: json", "_path: org/name"), "names no files of documents"),
        (
            CHOICE.replace("rows/items", "rows/others"),
            "'rows/others.jsonl', which is no file in",
        ),
        (CHOICE.replace("rows/items.jsonl", "../../secret.jsonl"), "no file in the spec's directory"),
    ],
)
def test_a_task_that_cannot_be_done_is_refused_before_anything_is_trained(tmp_path, text, said):
    (tmp_path / "secret.jsonl").write_text("{}\n")
    write_tasks(tmp_path / "spec", [], choice=text)
    with pytest.raises(TunebuildError, match=said) as refused:
        read(tmp_path / "spec", "arc_easy", "./tasks/choice.yaml")
    assert refused.value.diagnostics[0].path == "evaluation.tasks[1]"


def test_what_the_library_refuses_is_refused_before_anything_is_trained(tmp_path):
    pytest.importorskip("lm_eval", reason=WITHOUT)
    write_tasks(tmp_path, ["a"], choice=CHOICE + "no_such_key: 1\n")
    with pytest.raises(TunebuildError, match=r"evaluation\.tasks: .*not do them: .*no_such_key"):
        require_tasks(read(tmp_path, "./tasks"))
    with pytest.raises(TunebuildError, match="lm-eval has no task 'arc_esy'"):
        require_tasks(read(tmp_path, "arc_easy", "arc_esy"))


def test_a_group_that_would_measure_nothing_is_refused_before_anything_is_trained(tmp_path):
    pytest.importorskip("lm_eval", reason=WITHOUT)
    # 'mmlu' says how its tasks' figures become one.
    with pytest.raises(TunebuildError, match=r"'galician_bench' is a group .* tasks instead: belebele_glg"):
        require_tasks(read(tmp_path, "mmlu", "galician_bench"))


def test_a_task_without_a_figure_is_no_result(trained, tmp_path):
    pytest.importorskip("lm_eval", reason=WITHOUT)
    _, settings, base, _, adapter = trained
    write_tasks(tmp_path, ["a"], choice=CHOICE.replace("[{metric: acc}]", "[]"))
    model = load_trained(base.directory, adapter.path("adapter"), settings)
    with pytest.raises(TunebuildError, match=r"evaluation\.tasks: lm-eval came to no figure in 'choice'"):
        do_tasks(model, base.directory, read(tmp_path, "./tasks"), None)


@pytest.mark.parametrize(
    ("task", "peft", "said"),
    [
        ("arc_easy", "ia3", None),
        ("arc_easy", "prompt_tuning", None),
        ("tasks/a.yaml", "ia3", "did you mean ./tasks/a.yaml"),
        ("./none.yaml", "ia3", "there is no file './none.yaml'"),
    ],
)
def test_a_spec_names_tasks_that_there_are(tmp_path, task, peft, said):
    spec = {
        "apiVersion": "tunebuild/v1",
        "name": "x",
        "data": {"train": [{"path": "a.jsonl"}]},
        "model": {"base": "org/model"},
        "tuning": {"method": "peft", "peft": {"type": peft}},
        "merge": {"strategy": "none"},
        "evaluation": {"tasks": [task]},
    }
    (tmp_path / "a.jsonl").touch()
    problems = [str(found) for found in broken_rules(Spec.model_validate(spec), Folder(tmp_path))]
    assert (said in "".join(problems)) if said else problems == []


def test_names_are_told_apart(tmp_path):
    write_tasks(tmp_path, [], choice=CHOICE)
    with pytest.raises(TunebuildError, match="two tasks of the name 'choice'"):
        read(tmp_path, "./tasks", "choice")
    with pytest.raises(TunebuildError, match=r"gates\.tasks\.chance: no task 'chance'.*there are: choice"):
        read(tmp_path, "./tasks", gated=["chance"])


def test_without_the_library_a_build_does_not_begin(tmp_path, monkeypatch):
    monkeypatch.setattr("tunebuild.evaluate.tasks.find_spec", lambda name: None)
    with pytest.raises(TunebuildError, match=r"evaluation\.tasks: .*pip install .*\[lm-eval\]"):
        require_tasks(read(tmp_path, "arc_easy"))
    require_tasks(())
