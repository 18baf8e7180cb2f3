"""What is carried means in the spec what it means in the other tool."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunebuild.errors import TunebuildError
from tunebuild.importers import import_config
from tunebuild.spec import load_spec
from tunebuild.spec.tuning import TuningSpec
from tunebuild.train.plan.settings import TrainSettings

AXOLOTL = """\
base_model: example-org/tiny
datasets: [{path: example-org/faq, type: alpaca}]
adapter: lora
lora_r: 8
lora_target_linear: true
num_epochs: 2
warmup_steps: 3
"""
FACTORY = "model_name_or_path: example-org/tiny\nstage: sft\nfinetuning_type: lora\ndataset: faq\n"
TRL = "model_name_or_path: example-org/tiny\ndataset_name: example-org/faq\nnum_train_epochs: 2\n"
AIKIT = """\
apiVersion: v1alpha1
baseModel: example-org/tiny
datasets: [{source: example-org/faq, type: alpaca}]
"""
UNSLOTH = """\
from unsloth import FastLanguageModel
model, tokenizer = FastLanguageModel.from_pretrained("example-org/tiny"%s)
model = FastLanguageModel.get_peft_model(model%s)
dataset = load_dataset("example-org/faq")
SFTTrainer(model=model, args=SFTConfig(num_train_epochs=1%s))
"""


class Import:
    """An import, with its spec as values by dotted path and the outcome of each key."""

    def __init__(self, imported):
        self.imported = imported
        self.spec = yaml.safe_load(imported.spec)
        self.outcomes = {outcome.key: outcome for outcome in imported.outcomes}

    def __getitem__(self, path):
        here = self.spec
        for part in path.replace("[", ".[").split("."):
            here = here[int(part[1:-1])] if part.startswith("[") else here.get(part)
            if here is None:
                return None
        return here

    def kind(self, key):
        return self.outcomes[key].kind


@pytest.fixture
def of(tmp_path):
    def of(text, name="theirs.yaml", **options):
        (tmp_path / name).write_text(text)
        return Import(import_config(tmp_path / name, **options))

    return of


def rows(directory, count, name="rows.jsonl"):
    lines = [json.dumps({"instruction": f"Why {n}?", "output": "So."}) for n in range(count)]
    text = "\n".join(lines) + "\n" if name.endswith("l") else f"[{', '.join(lines)}]"
    (directory / name).write_text(text)


@pytest.mark.parametrize(("micro", "pieces"), [(1, 1), (5, 3), (2, 8)])
def test_a_steps_rows_are_micro_batch_times_accumulation(of, micro, pieces):
    found = of(AXOLOTL + f"micro_batch_size: {micro}\ngradient_accumulation_steps: {pieces}\n")
    assert found["tuning.batch_size"] == micro * pieces
    assert found["tuning.micro_batch_size"] is None
    assert found.outcomes["micro_batch_size"].path == "tuning.batch_size"


def test_a_step_is_shared_by_as_many_processes_as_are_named(of):
    found = of(AXOLOTL + "micro_batch_size: 2\ngradient_accumulation_steps: 3\nnum_processes: 4\n")
    assert (found["tuning.batch_size"], found["tuning.processes"]) == (24, 4)


@pytest.mark.parametrize(
    ("text", "rows_of_a_step"),
    [(AXOLOTL, 1), (FACTORY, 8), (TRL, 8), (AIKIT, 8), (UNSLOTH % ("", "", ""), 8)],
)
def test_the_tools_own_batch_is_written_where_it_is_silent(of, text, rows_of_a_step):
    found = of(text, "theirs.py" if "import" in text else "theirs.yaml")
    assert found["tuning.batch_size"] == rows_of_a_step


def test_a_step_of_packs_needs_attention(of):
    found = of(AXOLOTL + "micro_batch_size: 2\nsequence_len: 1000\nsample_packing: true\n")
    assert found["tuning.packing"] is True
    assert found.kind("sample_packing") == "lost"
    assert "2,000 tokens" in found.outcomes["sample_packing"].text
    assert of(AXOLOTL + "sample_packing: false\n").kind("sample_packing") == "same"


def test_steps_of_counted_rows_are_epochs(of, tmp_path):
    rows(tmp_path, 120)
    text = AXOLOTL.replace("example-org/faq", "rows.jsonl").replace("warmup_steps: 3", "warmup_ratio: 0.2")
    found = of(text + "max_steps: 30\nmicro_batch_size: 2\nval_set_size: 0.5\n")
    assert found["tuning.epochs"] == 1  # 30 steps of 2 rows, of 120 of which half are held out
    assert (found.kind("max_steps"), found.kind("num_epochs")) == ("carried", "same")
    assert not found.imported.attention


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(1, 300), batch=st.integers(1, 40), steps=st.integers(1, 500))
def test_the_plan_counts_as_many_steps_as_the_other_tool_took(of, tmp_path, count, batch, steps):
    rows(tmp_path, count)
    text = (
        AXOLOTL.replace("example-org/faq", "rows.jsonl") + f"micro_batch_size: {batch}\nmax_steps: {steps}\n"
    )
    tuning = TuningSpec(**of(text)["tuning"])
    assert TrainSettings(tuning, "cpu", "float32").steps(count) == steps


def test_rows_of_a_list_are_counted_as_well(of, tmp_path):
    rows(tmp_path, 20, "rows.json")
    found = of(AXOLOTL.replace("example-org/faq", "rows.json") + "micro_batch_size: 4\nmax_steps: 10\n")
    assert found["tuning.epochs"] == 2


def test_steps_of_rows_that_nobody_counted_are_not_carried(of):
    found = of(AXOLOTL + "max_steps: 30\nmicro_batch_size: 2\n")
    assert found.kind("max_steps") == "lost"
    assert "60" in found.outcomes["max_steps"].todo
    assert found["tuning.epochs"] == 1
    assert of(TRL + "max_steps: -1\n").kind("max_steps") == "same"
    assert of(TRL + "max_steps: -1\n")["tuning.epochs"] == 2


def test_a_default_number_of_steps_is_said(of):
    found = of(AIKIT)
    assert any("60 steps of 8 rows are 480 rows" in notice.text for notice in found.imported.notices)
    assert found.imported.attention


@pytest.mark.parametrize(
    ("said", "schedule", "steps", "ratio", "kind"),
    [
        ("lr_scheduler: linear\nwarmup_steps: 9", "linear", 9, None, "carried"),
        ("lr_scheduler: cosine\nwarmup_steps: 0", "cosine", 0, None, "carried"),
        ("lr_scheduler: constant\nwarmup_steps: 9", "constant", 0, None, "carried"),
        ("lr_scheduler: constant_with_warmup\nwarmup_steps: 9", "constant", 9, None, "carried"),
        ("lr_scheduler: cosine_with_restarts\nwarmup_steps: 9", "cosine", 9, None, "lost"),
        ("lr_scheduler: polynomial\nwarmup_steps: 9", "linear", 9, None, "lost"),
        ("lr_scheduler: linear\nwarmup_ratio: 0", "linear", None, 0, "carried"),
        ("lr_scheduler: linear\nwarmup_ratio: 0.2", "linear", None, 0.2, "carried"),
        ("lr_scheduler: linear\nwarmup_steps: 0.25", "linear", None, 0.25, "carried"),
        ("lr_scheduler: linear\nwarmup_steps: 9\nwarmup_ratio: 0.5", "linear", 9, None, "carried"),
        ("lr_scheduler: linear\nwarmup_steps: 0\nwarmup_ratio: 0.5", "linear", 0, None, "carried"),
        ("lr_scheduler: linear", "linear", None, 0.03, "carried"),
    ],
)
def test_schedules_and_their_warmup(of, said, schedule, steps, ratio, kind):
    found = of(AXOLOTL.replace("warmup_steps: 3\n", "") + said)
    assert (found["tuning.schedule"], found["tuning.warmup_steps"]) == (schedule, steps)
    assert found["tuning.warmup_ratio"] == ratio
    assert found.kind("lr_scheduler") == kind


def test_no_steps_leave_it_to_a_share_in_transformers(of):
    found = of(TRL + "warmup_steps: 0\nwarmup_ratio: 0.2\n")
    assert (found["tuning.warmup_steps"], found["tuning.warmup_ratio"]) == (None, 0.2)


@pytest.mark.parametrize(
    ("said", "method"),
    [
        ("adapter: qlora\nload_in_4bit: true", "qlora"),
        ("adapter: lora\nload_in_4bit: true", "qlora"),
        ("adapter: lora\nload_in_8bit: true", "lora"),
        ("adapter: lora", "lora"),
        ("adapter:", "full"),
    ],
)
def test_an_adapter_and_its_bits_are_a_method(of, said, method):
    text = AXOLOTL.replace("adapter: lora", said)
    found = of(text)
    assert found["tuning.method"] == method
    assert (found["tuning.lora"] is None) == (method == "full")
    if "8bit" in said:
        assert found.kind("load_in_8bit") == "lost"


@pytest.mark.parametrize(
    ("text", "method", "name"),
    [
        (FACTORY, "lora", "a.yaml"),
        (FACTORY + "quantization_bit: 4\n", "qlora", "a.yaml"),
        (FACTORY.replace("lora", "full"), "full", "a.yaml"),
        (TRL, "full", "a.yaml"),
        (TRL + "use_peft: true\n", "lora", "a.yaml"),
        (TRL + "use_peft: true\nload_in_4bit: true\n", "qlora", "a.yaml"),
        (AIKIT, "qlora", "a.yaml"),
        (AIKIT + "config: {unsloth: {loadIn4bit: false}}\n", "lora", "a.yaml"),
        (UNSLOTH % ("", "", ""), "qlora", "a.py"),
        (UNSLOTH % (", load_in_4bit=False", "", ""), "lora", "a.py"),
        (UNSLOTH % (", full_finetuning=True", "", ""), "full", "a.py"),
    ],
)
def test_each_tools_way_to_say_the_method(of, text, method, name):
    assert of(text, name)["tuning.method"] == method


@pytest.mark.parametrize(
    ("said", "targets"),
    [
        ("lora_target_modules: [q_proj, v_proj]", ["q_proj", "v_proj"]),
        ("lora_target_modules: all-linear", "all-linear"),
        ("lora_target_linear: true\nlora_target_modules: [q_proj]", "all-linear"),
        (r"lora_target_modules: 'layers.[\d]+.(mlp|self_attn).(up|down)_proj'", ["up_proj", "down_proj"]),
        ("", ["q_proj", "v_proj"]),
    ],
)
def test_targets(of, said, targets):
    assert of(AXOLOTL.replace("lora_target_linear: true", said))["tuning.lora.targets"] == targets


def test_a_pattern_of_targets_is_not_guessed(of):
    found = of(AXOLOTL.replace("lora_target_linear: true", "lora_target_modules: '.*attn.*'"))
    assert found.kind("lora_target_modules") == "lost"


@pytest.mark.parametrize(
    ("text", "r", "alpha"),
    [
        (FACTORY, 8, 16),
        (FACTORY + "lora_rank: 5\n", 5, 10),
        (FACTORY + "lora_rank: 5\nlora_alpha: 7\n", 5, 7),
        (AIKIT, 16, 16),
        (TRL + "use_peft: true\n", 16, 32),
        (TRL + "use_peft: true\nlora_r: 4\n", 4, 32),
    ],
)
def test_rank_and_scale_with_the_tools_defaults(of, text, r, alpha):
    found = of(text)
    assert (found["tuning.lora.r"], found["tuning.lora.alpha"]) == (r, alpha)


@pytest.mark.parametrize(
    ("said", "kind", "fraction"),
    [("0.0", "same", None), ("0.04", "carried", 0.04), ("200", "lost", 0.05), ("0", "same", None)],
)
def test_held_out_rows(of, said, kind, fraction):
    found = of(AXOLOTL + f"val_set_size: {said}\n")
    assert (found.kind("val_set_size"), found["data.eval.fraction"]) == (kind, fraction)


def test_evaluations_are_counted_in_all(of):
    found = of(AXOLOTL + "val_set_size: 0.1\nevals_per_epoch: 3\n")
    assert found["tuning.evaluations"] == 6
    assert of(AXOLOTL + "evals_per_epoch: 3\n").kind("evals_per_epoch") == "same"


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("train_on_inputs: false", "same"),
        ("train_on_inputs: true", "lost"),
        ("roles_to_train: [assistant]", "same"),
        ("roles_to_train: [assistant, user]", "lost"),
        ("train_on_eos: turn", "same"),
        ("train_on_eos: none", "lost"),
    ],
)
def test_what_is_in_the_loss(of, said, kind):
    assert of(AXOLOTL + said + "\n").kind(said.partition(":")[0]) == kind


@pytest.mark.parametrize(
    ("theirs", "ours", "kind"),
    [
        ("chatml", "chatml", "carried"),
        ("tokenizer_default", "base", "carried"),
        ("llama3", "llama3", "carried"),
        ("phi_3", "phi3", "carried"),
        ("qwen_25", "qwen", "carried"),
        ("mistral_v1", "mistral", "carried"),
        ("tokenizer_default_fallback_chatml", "base", "carried"),
        ("gemma3", "base", "lost"),
    ],
)
def test_names_of_templates(of, theirs, ours, kind):
    text = AXOLOTL.replace("type: alpaca", "type: chat_template") + f"chat_template: {theirs}\n"
    found = of(text)
    assert (found["prompt.template"], found.kind("chat_template")) == (ours, kind)


def test_alpaca_rows_are_printed_under_alpacas_headings(of):
    assert of(AXOLOTL)["prompt.template"] == "alpaca"
    assert of(AXOLOTL + "chat_template: chatml\n")["prompt.template"] == "alpaca"
    assert of(AIKIT)["prompt.template"] == "alpaca"


@pytest.mark.parametrize(
    ("said", "source"),
    [
        ("type: alpaca", {"format": "alpaca"}),
        ("type: sharegpt", {"format": "sharegpt"}),
        ("type: chat_template", {"format": "messages"}),
        ("type: chat_template, field_messages: conversations", {"format": "sharegpt"}),
        (
            "type: chat_template, field_messages: talk",
            {"format": "messages", "columns": {"messages": "talk"}},
        ),
        ("type: completion, field: story", {"format": "text", "columns": {"text": "story"}}),
        ("type: completion", {"format": "text"}),
        ("type: alpaca, name: en, revision: v2", {"format": "alpaca", "config": "en", "revision": "v2"}),
        ("type: alpaca, split: 'test[:90]'", {"format": "alpaca", "split": "test", "max_rows": 90}),
        (
            "type: {field_instruction: ask, field_output: reply, field_input: input}",
            {"format": "alpaca", "columns": {"instruction": "ask", "output": "reply"}},
        ),
    ],
)
def test_rows_of_axolotl(of, said, source):
    found = of(AXOLOTL.replace("type: alpaca", said))
    assert found["data.train[0]"] == {"hub": "example-org/faq", "split": "train", **source}
    assert not found.imported.of("lost")


@pytest.mark.parametrize(
    "said",
    [
        "type: chat_template, message_property_mappings: {role: speaker, content: value}",
        "type: chat_template, roles: {assistant: [gpt, bot]}",
        "type: chat_template, message_field_training: learn",
        "type: 'context_qa.load_v2'",
        "type: alpaca, split: 'train[:10%]'",
        "type: alpaca, split: train+test",
        "type: {field_instruction: ask, format: 'Q {instruction}'}",
        "type: alpaca, shards: 3",
    ],
)
def test_rows_of_another_form_are_not_carried_silently(of, said):
    assert of(AXOLOTL.replace("type: alpaca", said)).imported.of("lost")


@pytest.mark.parametrize("named", ["s3://bucket/rows.jsonl", "https://data.example.com/rows.jsonl?x=1"])
def test_an_address_of_rows_is_said(of, named):
    found = of(AXOLOTL.replace("example-org/faq", f"'{named}'"))
    assert found["data.train[0].path"] == "rows.jsonl"
    assert found.kind("datasets[0].path") == "lost"


def test_dataset_info_beside_the_configuration_is_read(of, tmp_path):
    (tmp_path / "data").mkdir()
    rows(tmp_path / "data", 3, "faq.json")
    entry = {"file_name": "faq.json", "columns": {"prompt": "ask", "response": "output"}}
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps({"faq": entry}))
    found = of(FACTORY)
    assert found["data.train[0]"] == {
        "path": "data/faq.json",
        "format": "alpaca",
        "columns": {"instruction": "ask"},
    }
    assert found.outcomes["dataset_info.faq.columns.prompt"].path == "data.train[0].columns.instruction"
    assert not found.imported.attention


def test_rows_are_found_from_where_the_tool_is_started(of, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "examples").mkdir()
    rows(tmp_path / "data", 3, "faq.json")
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps({"faq": {"file_name": "faq.json"}}))
    monkeypatch.chdir(tmp_path)
    found = of(FACTORY, "examples/theirs.yaml", target=tmp_path / "spec.yaml")
    assert found["data.train[0].path"] == "data/faq.json"
    assert not found.imported.attention


@pytest.mark.parametrize("breaks", ["\n", "\u2028", "\x85", "\r", "\x1b[31m"])
def test_no_value_becomes_a_line_of_the_spec(of, breaks):
    named = f"x/y{breaks}gates: {{merge_kl: null}}{breaks}z-bnb-4bit"
    text = AXOLOTL.replace("example-org/tiny", json.dumps(named)) + f"chat_template: {json.dumps(named)}\n"
    found = of(text.replace("type: alpaca", "type: chat_template"))
    assert found["gates"] is None


@pytest.mark.parametrize("tool", ["axolotl", "trl", "unsloth"])
def test_of_several_data_files_none_is_dropped_silently(of, tool):
    def imported(files):
        item = f"datasets: [{{path: json, data_files: {files}}}]\n"
        if tool == "unsloth":
            script = (UNSLOTH % ("", "", "")).replace('"example-org/faq"', f'"json", data_files={files}')
            return of(script, "theirs.py"), "load_dataset[0].data_files"
        if tool == "trl":
            return of(f"model_name_or_path: example-org/tiny\n{item}"), "datasets[0].data_files"
        return of(AXOLOTL.replace(AXOLOTL.splitlines()[1] + "\n", item)), "datasets[0].data_files"

    found, key = imported('{"train": "a.jsonl", "test": "b.jsonl"}')
    assert found["data.train[0].path"] == "a.jsonl"
    assert (found.kind(f"{key}.train"), found.kind(f"{key}.test")) == ("carried", "lost")
    for files in ('["a.jsonl", "b.jsonl"]', '{"train": ["a.jsonl", "b.jsonl"]}'):
        found, _ = imported(files)
        assert found["data.train[0].path"] == "a.jsonl"
        assert any("of 2 data_files the first" in notice.text for notice in found.imported.notices)


def test_a_split_that_a_script_evaluates_on_is_not_trained_on(of):
    load = (
        'load_dataset("example-org/faq", split="train_sft")\nheld = load_dataset("example-org/faq", split=%r)'
    )
    head, tail = (UNSLOTH % ("", "", "")).split('load_dataset("example-org/faq")')
    for split in ("test", "validation", "test_sft", "val[:50]"):
        script = (head + load % split + tail).replace("args=", "eval_dataset=held, args=")
        found = of(script, "theirs.py")
        assert [one["split"] for one in found["data.train"]] == ["train_sft"]
        assert [one["split"] for one in found["data.eval.files"]] == [split.partition("[")[0]]
        assert found.outcomes["SFTTrainer.eval_dataset"].path == "data.eval.files"
    alone = of(head + 'load_dataset("example-org/faq", split="test")' + tail, "theirs.py")
    assert alone["data.train[0].split"] == "test"


def test_a_data_set_that_nobody_describes_is_said(of):
    found = of(FACTORY)
    assert any(notice.attention and "faq" in notice.text for notice in found.imported.notices)


def test_a_quantized_twin_is_replaced_by_its_16_bit_weights(of):
    found = of(AIKIT.replace("example-org/tiny", "example-org/tiny-unsloth-bnb-4bit"))
    assert (found["model.base"], found["tuning.method"]) == ("example-org/tiny", "qlora")


def test_seed_decay_clipping_and_length(of):
    found = of(AXOLOTL + "seed: 8\nweight_decay: 0.02\nmax_grad_norm: 0.3\nsequence_len: 640\n")
    tuning = found["tuning"]
    assert (tuning["seed"], tuning["weight_decay"]) == (8, 0.02)
    assert (tuning["max_grad_norm"], tuning["max_length"]) == (0.3, 640)
    assert of(AXOLOTL)["tuning.seed"] == 42
    assert of(AXOLOTL + "max_grad_norm: 0\n").kind("max_grad_norm") == "lost"


def test_sampling_settings_are_those_of_the_endpoint(of):
    found = of(FACTORY + "temperature: 0.4\ntop_p: 0.7\nmax_new_tokens: 90\n")
    assert found["serving.defaults"] == {"max_tokens": 90, "temperature": 0.4, "top_p": 0.7}


def test_yaml_is_read_as_the_other_tool_reads_it(of):
    found = of(AXOLOTL + "learning_rate: 2e-5\nsample_packing: off\nload_in_8bit: no\n")
    assert found["tuning.learning_rate"] == 2e-5
    assert (found.kind("sample_packing"), found.kind("load_in_8bit")) == ("same", "same")


def test_a_value_of_several_lines_is_shown_on_one(of):
    found = of(AXOLOTL + 'wandb_name: "a\\nb: c"\n')
    assert found.kind("wandb_name") == "lost"
    assert "\n" not in found.outcomes["wandb_name"].todo


def test_a_token_is_never_shown(of):
    secret = "hf_" + "a" * 30
    for text, name in (
        (AXOLOTL + f"hf_token: {secret}\nwandb_api_key: {secret}\n", "a.yaml"),
        (UNSLOTH % (f', token="{secret}"', "", ""), "a.py"),
    ):
        found = of(text, name)
        assert secret not in json.dumps(found.imported.as_json())
        assert all("does not know" not in outcome.text for outcome in found.imported.outcomes)
        assert found.imported.attention


@pytest.mark.parametrize(
    ("text", "name", "about"),
    [
        (AXOLOTL + "rl: dpo\n", "a.yaml", "preferences"),
        (AXOLOTL + "rl: orpo\n", "a.yaml", "preferences"),
        (AXOLOTL + "rl: grpo\n", "a.yaml", "rewards"),
        (AXOLOTL + "reward_model: true\n", "a.yaml", "a reward model"),
        (FACTORY.replace("stage: sft", "stage: kto"), "a.yaml", "preferences"),
        (AIKIT + "objective: {type: dpo}\n", "a.yaml", "preferences"),
        (TRL + "beta: 0.1\n", "a.yaml", "preferences"),
        (UNSLOTH.replace("SFT", "DPO") % ("", "", ""), "a.py", "preferences"),
    ],
)
def test_training_on_anything_but_answers_is_refused(of, text, name, about):
    with pytest.raises(TunebuildError) as refused:
        of(text, name)
    (diagnostic,) = refused.value.diagnostics
    assert about in diagnostic.message
    assert diagnostic.hint


def test_names_in_a_script_are_followed_and_nothing_is_run(of, tmp_path):
    script = (
        f"open({str(tmp_path / 'ran')!r}, 'w')\nRANK = 6\nRATE = 1e-4\nif RANK > 3:\n    RATE = 2e-4\n"
        "settings = {'seed': 4}\n"
    ) + UNSLOTH % (
        ", max_seq_length=512 * 2",
        ", r=RANK, lora_alpha=RANK * 2",
        ", learning_rate=RATE, **settings",
    )
    found = of(script, "theirs.py")
    assert not (tmp_path / "ran").exists()
    tuning = found["tuning"]
    assert (tuning["lora"]["r"], tuning["lora"]["alpha"], tuning["max_length"], tuning["seed"]) == (
        6,
        12,
        1024,
        4,
    )
    assert found.kind("SFTConfig.learning_rate") == "lost"  # which of the two it is, only running would tell
    assert "RATE" in found.outcomes["SFTConfig.learning_rate"].text


def test_a_text_that_is_doubled_line_by_line_does_not_fill_the_memory(of):
    bomb = "text = 'ab'\n" + "text = text + text\n" * 200
    found = of(bomb + UNSLOTH % ("", ", r=4", ", run_name=text"), "theirs.py")
    assert found["tuning.lora.r"] == 4


def test_what_is_changed_in_place_is_not_carried_as_it_was(of):
    script = "modules = ['q_proj']\nmodules.append('v_proj')\n" + UNSLOTH
    found = of(script % ("", ", target_modules=modules", ""), "theirs.py")
    assert found["tuning.lora.targets"] != ["q_proj"]
    assert found.kind("get_peft_model.target_modules") == "lost"


def test_settings_that_are_assigned_after_the_call_need_attention(of):
    head, _, _ = (UNSLOTH % ("", "", "")).partition("SFTTrainer(")
    script = head + (
        "tokenizer.pad_token = tokenizer.eos_token\n"
        "args = SFTConfig(num_train_epochs=1, learning_rate=1e-4)\nargs.learning_rate = 5e-5\n"
        "trainer = SFTTrainer(model=model, args=args)\ntrainer.args.seed = 9\n"
    )
    said = [notice.text for notice in of(script, "theirs.py").imported.notices if notice.attention]
    assert any(text.startswith("args.learning_rate is set after SFTConfig") for text in said)
    assert any(text.startswith("trainer.args.seed is set after SFTTrainer") for text in said)
    assert not any("pad_token" in text for text in said)


def test_of_two_values_for_one_key_only_the_one_that_is_written_is_carried(of):
    for text in ("seed: 8\ndata_seed: 9\n", "data_seed: 9\nseed: 8\n"):
        found = of(AXOLOTL + text)
        assert found["tuning.seed"] == 8
        assert (found.kind("seed"), found.kind("data_seed")) == ("carried", "lost")
    assert of(AXOLOTL + "seed: 8\ndata_seed: 8\n").kind("data_seed") == "carried"
    arguments = (", max_seq_length=2048", ", random_state=1", ", max_length=1024, seed=1")
    script = of(UNSLOTH % arguments, "theirs.py")
    assert script["tuning.max_length"] == 1024
    assert script.kind("from_pretrained.max_seq_length") == "lost"
    assert script.kind("get_peft_model.random_state") == "carried"


def test_no_limit_of_length_is_not_taken_for_the_usual_one(of):
    assert of(TRL + "max_length: null\n").kind("max_length") == "lost"


def test_a_notebook_is_read_cell_by_cell(of):
    code = (UNSLOTH % ("", ", r=7", "")).splitlines(keepends=True)
    cells = [
        {"cell_type": "markdown", "source": ["# not code ("]},
        {"cell_type": "code", "source": ["%%bash\n", "echo )\n"]},
        {"cell_type": "code", "source": ["!pip install unsloth\n", *code[:2]]},
        {"cell_type": "code", "source": "this is no python"},
        {"cell_type": "code", "source": "".join(code[2:])},
    ]
    found = of(json.dumps({"cells": cells}), "theirs.ipynb")
    assert found["tuning.lora.r"] == 7
    assert any("not Python" in notice.text and "3" in notice.text for notice in found.imported.notices)


def test_what_an_import_of_local_rows_writes_is_a_valid_spec(of, tmp_path):
    rows(tmp_path, 40)
    found = of(AXOLOTL.replace("example-org/faq", "./rows.jsonl"), "support bot.yml")
    assert not found.imported.attention, found.imported.notices
    (tmp_path / "spec.yaml").write_text(found.imported.spec)
    spec = load_spec(tmp_path / "spec.yaml").spec
    assert (spec.name, spec.data.train[0].path) == ("support-bot", "rows.jsonl")
