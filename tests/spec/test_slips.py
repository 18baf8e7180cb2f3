"""Slips one step from what the schema takes: the hint says what was meant, and what it says is right."""

from __future__ import annotations

import json
import re

import pytest

from tunebuild.errors import TunebuildError
from tunebuild.spec import load_spec
from tunebuild.spec._repairs import _sections
from tunebuild.spec.foreign import FOREIGN_KEYS, foreign_hint
from tunebuild.spec.yaml_loader import parse_dotted, parse_yaml

FRAME = """\
apiVersion: tunebuild/v1
name: a
data:
  train: [{path: faq.jsonl}]
  eval: {fraction: 0.1}
model: {base: ./base}
"""


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    for name in ("faq.jsonl", "x.jinja"):
        (tmp_path / name).touch()
    return tmp_path


def load(directory, text):
    (directory / "spec.yaml").write_text(text)
    return load_spec(directory / "spec.yaml").spec


def said(directory, text):
    with pytest.raises(TunebuildError) as caught:
        load(directory, text)
    return [(d.path, d.hint) for d in caught.value.diagnostics]


def mended(text: str, path: str, meant: str) -> str:
    """The spec with another value at a path."""
    value = parent = parse_yaml(text.encode(), "x").value
    *sections, key = parse_dotted(path)
    for section in sections:
        parent = parent[section]
    parent[key] = parse_yaml(meant.encode(), "x").value
    return json.dumps(value)


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("serving: {device: gpu}", "cuda"),
        ("serving: {device: CUDA}", "cuda"),
        ("serving: {dtype: bf16}", "bfloat16"),
        ("serving: {port: '8080'}", "8080"),
        ("serving: {defaults: 256}", "{max_tokens: 256}"),
        ("tuning: {memory: 8GB}", "{fit: 8GB}"),
        ("tuning: {memory: 8}", "{fit: 8GB}"),
        ("tuning: {memory: 12 gib}", "{fit: 12GiB}"),
        ("tuning: {memory: {fit: 8gb}}", "8GB"),
        ("tuning: {memory: {fit: 80}}", "80GB"),
        ("tuning: {memory: {fit: 500mb}}", "500MB"),
        ("tuning: {lora: {targets: q_proj}}", "[q_proj]"),
        ("tuning: {lora: {targets: 'q_proj, v_proj'}}", "[q_proj, v_proj]"),
        ("tuning: {lora: {targets: all-liner}}", "all-linear"),
        ("tuning: {lora: 8}", "{r: 8}"),
        ("tuning: {epochs: '3'}", "3"),
        ("tuning: {learning_rate: '2e-4'}", "0.0002"),
        ("tuning: {max_length: '2,048'}", "2048"),
        ("tuning: {batch_size: [8]}", "8"),
        ("tuning: {packing: off}", "false"),
        ("tuning: {packing: yes}", "true"),
        ("tuning: {early_stopping: 3}", "{patience: 3}"),
        ("tuning: {report_to: wandb}", "[wandb]"),
        ("tuning: lora", "{method: lora}"),
        ("merge: original", "{strategy: original}"),
        ("prompt: chatml", "{template: chatml}"),
        ("prompt: {template: ./x.jinja}", "{file: ./x.jinja}"),
        ("prompt: {template: x.jinja}", "{file: x.jinja}"),
        ("gates: {merge_kl: 0.02}", "{max: 0.02}"),
        ("gates: {exact_match: 90%}", "{min: 0.9}"),
        ("evaluation: {regression: Who wrote Hamlet?}", "['Who wrote Hamlet?']"),
        ("image: registry.example.com/a", "{repository: registry.example.com/a}"),
    ],
)
def test_the_intended_value_is_suggested(directory, line, meant):
    text = FRAME + line + "\n"
    ((path, hint),) = said(directory, text)
    assert hint in (f"did you mean {meant}?", f"did you mean '{meant}'?")
    load(directory, mended(text, path, meant))


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("tuning: {lora: {rank: 8}}", "'r'"),
        ("tuning: {lr: 1e-4}", "'learning_rate'"),
        ("tuning: {learningRate: 1e-4}", "'learning_rate'"),
        ("tuning: {r: 8}", "tuning.lora.r"),
        ("tuning: {lora: {epochs: 1}}", "tuning.epochs"),
        ("serving: {context: 64}", "serving.limits.context"),
        ("epochs: 1", "tuning.epochs"),
        ("format: qa", "data.train[].format or data.eval.files[].format or exports[].format"),
    ],
)
def test_the_intended_key_is_suggested(directory, line, meant):
    ((_, hint),) = said(directory, FRAME + line + "\n")
    assert hint == f"did you mean {meant}?"


#: The head of a configuration for axolotl, LLaMA-Factory, TRL or Unsloth: what is meant, or who decides.
FOREIGN = {
    "base_model: org/m": "did you mean model.base?",
    "model_name_or_path: org/m": "did you mean model.base?",
    "datasets: [{path: x}]": "did you mean data.train?",
    "val_set_size: 0.1": "did you mean data.eval.fraction?",
    "num_epochs: 3": "did you mean tuning.epochs?",
    "num_train_epochs: 3": "did you mean tuning.epochs?",
    "micro_batch_size: 2": "did you mean tuning.micro_batch_size?",
    "per_device_train_batch_size: 2": "did you mean tuning.micro_batch_size?",
    "gradient_accumulation_steps: 4": "tuning.batch_size counts all rows of a step",
    "gradient-accumulation-steps: 4": "tuning.batch_size counts all rows of a step",
    "sequence_len: 4096": "did you mean tuning.max_length?",
    "cutoff_len: 4096": "did you mean tuning.max_length?",
    "max_seq_length: 4096": "did you mean tuning.max_length?",
    "lr_scheduler: cosine": "did you mean tuning.schedule?",
    "lr_scheduler_type: cosine": "did you mean tuning.schedule?",
    "warmup_ratio: 0.03": "did you mean tuning.warmup_ratio?",
    "lora_r: 8": "did you mean tuning.lora.r?",
    "lora_alpha: 16": "did you mean tuning.lora.alpha?",
    "lora_target_modules: [q_proj]": "did you mean tuning.lora.targets?",
    "load_in_4bit: true": "say tuning.method: qlora",
    "load_in_8bit: true": "there are no 8-bit bases",
    "bf16: auto": "say tuning.compute_dtype",
    "adapter: qlora": "did you mean tuning.method?",
    "gradient_checkpointing: true": "the memory plan decides",
    "flash_attention: true": "not a setting: the fastest attention",
    "optim: adamw_8bit": "not a setting: the optimizer is AdamW",
    "train_on_inputs: false": "not a setting: answers are in the loss",
    "sample_packing: true": "did you mean tuning.packing?",
    "output_dir: out": "not a setting: what is built is kept in the store",
    "chat_template: chatml": "did you mean prompt.template?",
    "wandb_project: x": "say tuning.report_to",
    "trust_remote_code: true": "code that comes with a model is never run",
}


@pytest.mark.parametrize("line", FOREIGN)
def test_another_tools_key_is_answered(directory, line):
    ((path, hint),) = said(directory, FRAME + line + "\n")
    assert path == line.partition(":")[0]
    assert hint.startswith(FOREIGN[line])


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("tuning: {num_epochs: 3}", "did you mean 'epochs'?"),
        ("tuning: {lora_r: 8}", "did you mean tuning.lora.r?"),
        ("tuning: {lora: {lora_alpha: 8}}", "did you mean 'alpha'?"),
        ("tuning: {bf16: true}", "say tuning.compute_dtype"),
        ("tuning: {lora: {bias: none}}", "adapters train no biases"),
        ("model: {base: ./base, load_in_4bit: true}", "say tuning.method: qlora"),
    ],
)
def test_another_tools_key_is_answered_in_each_section(directory, line, meant):
    before = FRAME.replace("model: {base: ./base}\n", "") if line.startswith("model") else FRAME
    ((_, hint),) = said(directory, before + line)
    assert hint.startswith(meant)


def test_what_is_suggested_for_another_tools_key_exists():
    fields = {f"{section}.{key}".lstrip(".") for section, keys in _sections().items() for key in keys}
    sections = "|".join({field.partition(".")[0].partition("[")[0] for field in fields})
    named = re.compile(rf"\b(?:{sections})(?:\[\])?\.[a-z_]+(?:(?:\[\])?\.[a-z_]+)*")
    hints = {foreign_hint(key, "") for key in FOREIGN_KEYS}
    assert len(hints) > 60
    paths = {path for hint in hints for path in named.findall(hint)}
    assert paths <= fields
    # Nobody is sent away from a key that is there.
    assert not [key for key in FOREIGN_KEYS if key in _sections()[""]]


@pytest.mark.parametrize(
    ("old", "new", "meant"),
    [
        ("train: [{path: faq.jsonl}]", "train: faq.jsonl", "[{path: faq.jsonl}]"),
        ("train: [{path: faq.jsonl}]", "train: [faq.jsonl]", "{path: faq.jsonl}"),
        ("train: [{path: faq.jsonl}]", "train: {path: faq.jsonl}", "[{path: faq.jsonl}]"),
        ("eval: {fraction: 0.1}", "eval: 0.1", "{fraction: 0.1}"),
        ("eval: {fraction: 0.1}", "eval: {fraction: 10%}", "0.1"),
        ("eval: {fraction: 0.1}", "eval: {files: faq.jsonl}", "[{path: faq.jsonl}]"),
        ("eval: {fraction: 0.1}", "deduplicate: false", "off"),
        ("eval: {fraction: 0.1}", "deduplicate: none", "off"),
        ("eval: {fraction: 0.1}", "deduplicate: 0.9", "{near: 0.9}"),
        ("eval: {fraction: 0.1}", "deduplicate: exat", "exact"),
        ("{base: ./base}", "{base: {path: ./base}}", "./base"),
        ("{base: ./base}", "./base", "{base: ./base}"),
        ("name: a", "name: [a]", "a"),
        ("name: a", "name: Support Bot", "support-bot"),
        ("model:", "image: {repository: Registry.example.com/Bot}\nmodel:", "registry.example.com/bot"),
    ],
)
def test_suggestions_name_existing_values(directory, old, new, meant):
    assert old in FRAME
    text = FRAME.replace(old, new)
    ((path, hint),) = said(directory, text)
    assert hint in (f"did you mean {meant}?", f"did you mean '{meant}'?")
    load(directory, mended(text, path, meant))


def test_a_number_for_text_is_not_spelt_out(directory):
    ((path, hint),) = said(directory, FRAME + "image: {tag: 1.10}\n")
    assert (path, hint) == ("image.tag", "put it in quotes, so that it is text")


@pytest.mark.parametrize("line", ["tuning: {epochs: many}", "serving: {port: [1, 2]}", "gates: 0.5"])
def test_no_suggestion_without_a_similar_key(directory, line):
    ((_, hint),) = said(directory, FRAME + line + "\n")
    assert "did you mean" not in hint


@pytest.mark.parametrize("text", [FRAME + "tuning:\n", FRAME.replace("./base", "~")])
def test_a_key_without_a_value(directory, text):
    ((_, hint),) = said(directory, text)
    assert hint == "write something behind it, or take it out"


def test_what_is_no_spec_at_all(directory):
    load(directory, FRAME)
    with pytest.raises(TunebuildError, match=r"is a directory; did you mean .*spec.yaml\?"):
        load_spec(directory)
    with (directory / "image.tar").open("wb") as archive:
        archive.truncate(1 << 40)
    with pytest.raises(TunebuildError, match="give the YAML file, not what was built from it"):
        load_spec(directory / "image.tar")


def test_off_is_text_as_in_yaml_1_2(directory):
    text = FRAME.replace("eval:", "deduplicate: off\n  eval:")
    assert load(directory, text).data.deduplicate == "off"
