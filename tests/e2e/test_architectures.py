"""Llama, Mistral and Falcon each go the whole way, from rows to an endpoint that knows them."""

from __future__ import annotations

import json

import pytest
import torch

from support import templates
from support.models import ARCHITECTURES, save_base
from support.quickstart import tunebuild
from support.rows import PAIRS
from tunebuild import resources

SPEC = """\
apiVersion: tunebuild/v1
name: tiny
data:
  train:
    - {{path: rows.csv, format: prompt_completion}}
model:
  base: ./base
prompt:
  template: {template}
tuning:
  method: {method}{tuning}
  epochs: 120
  batch_size: 5
  max_length: 128
serving:
  defaults: {{max_tokens: 40}}
  limits: {{context: 200}}
"""


@pytest.mark.parametrize(
    ("architecture", "method", "template", "targets"),
    [
        # The prompt opens a block for reasoning; of the rows, one half reasons in it.
        ("llama", "qlora", "opened", "all-linear"),
        # Embedding and head are one tensor.
        ("falcon", "lora", "base", "[query_key_value, dense, lm_head]"),
        ("mistral", "full", "qa", ""),
    ],
)
def test_whole_path(quickstart, tmp_path, architecture, method, template, targets):
    """With new control tokens in templates that are not the base's."""
    assert architecture in ARCHITECTURES
    save_base(architecture, tmp_path / "base", dtype=torch.bfloat16, hidden_size=128)
    shipped = resources.path("templates", "prompts", "qa.jinja").read_text()
    for name, source, marker in (("opened", templates.OPENED, "<|im_start|>"), ("qa", shipped, "Question:")):
        assert marker in source
        (tmp_path / f"{name}.jinja").write_text(source.replace(marker, "<|turn|>"))
    own = template != "base"
    prompt = f"{{file: {template}.jinja}}\n  new_tokens: ['<|turn|>']" if own else template
    block = "<think>\nEasy.\n</think>\n\n" if template == "opened" else ""
    rows = "".join(f'"{q}","{block * (n % 2)}{a}"\n' for n, (q, a) in enumerate(PAIRS))
    (tmp_path / "rows.csv").write_text(f"prompt,completion\n{rows}")
    spec = tmp_path / "spec.yaml"
    adapter = f"\n  lora: {{r: 16, alpha: 32, targets: {targets}}}\n  learning_rate: 1e-2"
    tuning = "\n  learning_rate: 1e-3" if method == "full" else adapter
    spec.write_text(SPEC.format(method=method, tuning=tuning, template=prompt))
    # The store of the quickstart holds the runtime layers already.
    built = tunebuild("build", spec, "--store", quickstart.store)
    assert built.code == 0, built.err
    # Models this small do not learn all ten; merged wrongly they would know none.
    done = tunebuild("verify", spec, "--store", quickstart.store, "--engine", "none", "--min-exact", "0.5")
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "base" / "config.json").read_text())["model_type"] == architecture
