"""A thousand spoilt specs and more: each is refused at the spoilt line, and typos are understood."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tunebuild.errors import Diagnostic, TunebuildError
from tunebuild.spec import load_spec
from tunebuild.spec.schema import published_schema, schema_at
from tunebuild.spec.yaml_loader import NodePath, parse_yaml

SPEC = """\
apiVersion: tunebuild/v1
name: support-bot
description: Answers questions.
data:
  train:
    - path: faq.jsonl
      format: qa
      columns:
        answer: reply
      where:
        language:
          in: [en, fr]
          not: de
          matches: ^[a-z]+$
      weight: 0.5
      max_rows: 100
    - path: more.jsonl
      format: alpaca
      hub: org/dataset
      revision: v1.0
      token: ${env:HF_TOKEN}
    - hub: org/dataset
      split: train
      config: en
  eval:
    fraction: 0.1
    files:
      - path: held_out.jsonl
        format: prompt_completion
    on_leak: drop
  deduplicate:
    near: 0.85
  privacy:
    secrets: reject
    personal: off
  on_long: drop
  max_rejected: 0.01
model:
  base: org/model
  revision: main
  token: ${env:HF_TOKEN}
prompt:
  template: chatml
  system: Be brief.
  date: 2026-01-31
  plain_answers: refuse
  variables:
    enable_thinking: false
tuning:
  method: qlora
  lora:
    r: 8
    alpha: 16
    dropout: 0.1
    targets: all-linear
    rslora: true
    dora: true
    init: gaussian
  epochs: 2
  learning_rate: 2e-4
  schedule: cosine
  warmup_steps: 5
  batch_size: 8
  micro_batch_size: 2
  memory:
    fit: 24GB
  processes: 1
  nodes: 1
  shard: false
  packing: false
  evaluations: 3
  early_stopping:
    patience: 2
    min_delta: 0.1
  keep: best
  checkpoints: 3
  report_to:
    - tensorboard
  max_length: 512
  weight_decay: 0.1
  max_grad_norm: 0.5
  seed: 7
  compute_dtype: bfloat16
merge:
  strategy: dequantized
gates:
  merge_kl:
    max: 0.02
  merge_lost:
    max: 0.2
  merge_top1:
    min: 0.95
  eval_loss:
    max: 1.5
  eval_accuracy:
    min: 0.5
  eval_perplexity:
    max: 5.0
  exact_match:
    min: 0.5
  token_f1:
    min: 0.5
  rouge_l:
    min: 0.5
  regression_kl:
    max: 5.0
  regression_top1:
    min: 0.25
  tasks:
    arc_easy:
      acc:
        min: 0.5
        max: 1.0
evaluation:
  tasks:
    - arc_easy
  task_limit: 100
  samples: 8
  max_tokens: 32
  regression:
    - Who wrote Hamlet?
exports:
  - format: awq
    bits: 8
    group_size: 64
    samples: 32
    gates:
      kl:
        max: 0.05
      lost:
        max: 0.3
      top1:
        min: 0.5
      eval_loss:
        max: 1.5
      eval_accuracy:
        min: 0.5
      eval_perplexity:
        max: 5.0
serving:
  engine: transformers
  device: cuda
  dtype: float32
  port: 9000
  defaults:
    max_tokens: 64
    temperature: 0.5
    top_p: 0.9
  limits:
    context: 1024
    concurrency: 4
    queue: 8
    drain_seconds: 5
    requests_per_minute: 600
  cors:
    - https://app.example.com
  request_variables:
    - enable_thinking
image:
  source: https://git.example.com/support
  license: Apache-2.0
  repository: registry.example.com/support-bot
  tag: "1.0"
  base: apt
  platform: linux/amd64
outputs: [image, adapter]
"""

LETTERS = "abcdefghijklmnopqrstuvwxyz_"
FREE = {
    "columns": 1,
    "where": 1,
    "tasks": 2,
    "variables": 1,
}  # mappings whose keys are the user's own, so many levels deep


#: What stands for itself elsewhere, and what does not go with another field of this spec.
_ELSEWHERE = {"extends", "file", "new_tokens", "peft", "type", "virtual_tokens", "warmup_ratio"}


@dataclass(frozen=True)
class Mutant:
    """A spoilt spec: the line that is spoilt, what is wrong there, and the word that was meant."""

    text: str
    line: int
    codes: frozenset[str]
    meant: str = ""


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("specs")
    for name in ("faq", "more", "held_out"):
        (directory / f"{name}.jsonl").write_text("")
    return directory


def fields() -> Iterator[tuple[int, NodePath, str]]:
    """Line (from 0), path and value of each ``key: value`` in the text, in the order of lines."""
    document = parse_yaml(SPEC.encode(), "x")
    for path, where in document.key_positions.items():
        value = SPEC.splitlines()[where.line - 1].partition(":")[2].strip()
        yield where.line - 1, path, value


def typos(word: str, chance: random.Random, known: set[str]) -> Iterator[str]:
    """Distinct words one edit away that are no other known word."""
    seen = {word, *known}
    for _ in range(60):
        i = chance.randrange(len(word))
        letter = chance.choice(LETTERS)
        kind = chance.randrange(4)
        other = [
            word[:i] + letter + word[i:],
            word[:i] + word[i + 1 :],
            word[:i] + letter + word[i + 1 :],
            word[:i] + word[i + 1 : i + 2] + word[i] + word[i + 2 :],
        ][kind]
        if (
            other not in seen
            and re.fullmatch(r"[A-Za-z_][\w/-]*", other)
            and parse_yaml(other.encode(), "x").value == other
        ):
            seen.add(other)
            yield other


def siblings(path: NodePath) -> set[str]:
    """Keys of the mapping that a key stands in."""
    section = published_schema()
    for part in path[:-1]:
        named = section.get("properties", {}).get(part) or section.get("additionalProperties")
        section = section["items"] if isinstance(part, int) else named
        for branch in section.get("anyOf", [section]):
            if "$ref" in branch:
                section = published_schema()["$defs"][branch["$ref"].rpartition("/")[2]]
    return set(section["properties"])


def mutants() -> list[Mutant]:
    chance = random.Random(1)
    lines = SPEC.splitlines()
    found: list[Mutant] = []

    def spoil(line: int, new: str, *codes: str, meant: str = "", later: int = 0) -> None:
        text = "\n".join([*lines[:line], new, *lines[line + 1 :]]) + "\n"
        found.append(Mutant(text, line + 1 + later, frozenset(codes), meant))

    for line, path, value in fields():
        key, old = str(path[-1]), lines[line]
        if any(0 < len(path) - 1 - depth <= FREE.get(part, 0) for depth, part in enumerate(path)):
            continue
        for number, typo in enumerate(typos(key, chance, siblings(path))):
            if number >= 4:
                break
            meant = key if len(key) >= 3 else ""
            spoil(line, old.replace(f"{key}:", f"{typo}:", 1), "unknown-key", "missing-key", meant=meant)
        indent = " " * (len(old) - len(old.lstrip(" -")))
        spoil(
            line,
            f"{old}\n{indent}{key}: again" if value else old.replace(key, f"{key}x", 1),
            "duplicate-key",
            "unknown-key",
            "missing-key",
            later=1 if value else 0,
        )
        (*schemas,) = schema_at(path)
        kinds = {s.get("type", "string") for s in schemas}
        enums = [v for s in schemas for v in s.get("enum", [s["const"]] if "const" in s else [])]
        if not value:
            continue
        head = old[: old.index(":") + 1]
        for wrong, kind in (("[1]", "array"), ("{a: 1}", "object"), ("true", "boolean"), ("soon", "string")):
            if kind not in kinds and not (kind == "string" and enums):
                spoil(
                    line,
                    f"{head} {wrong}",
                    "wrong-type",
                    "wrong-value",
                    "secret",
                    "unknown-key",
                    "missing-key",
                )
        for schema in schemas:
            for rule, step in (
                ("minimum", -1),
                ("exclusiveMinimum", 0),
                ("maximum", 1),
                ("exclusiveMaximum", 0),
            ):
                if rule in schema:
                    spoil(line, f"{head} {schema[rule] + step}", "out-of-range", "wrong-type")
        for word in enums if value in enums else []:
            for number, typo in enumerate(typos(word, chance, set(enums))):
                if number >= 3:
                    break
                spoil(
                    line, f"{head} {typo}", "wrong-value", "wrong-type", meant=word if len(word) >= 3 else ""
                )
    return list(dict.fromkeys(found))


def diagnose(file, text) -> tuple[Diagnostic, ...]:
    file.write_text(text)
    try:
        load_spec(file)
    except TunebuildError as error:
        return error.diagnostics
    return ()


def test_the_spec_itself_is_valid_and_names_every_field(directory):
    assert diagnose(directory / "spec.yaml", SPEC) == ()
    named = {str(path[-1]) for _, path, _ in fields()}
    for section in (published_schema(), *published_schema()["$defs"].values()):
        assert set(section["properties"]) - named <= _ELSEWHERE


def test_every_mutant_is_refused_at_its_line_and_typos_are_understood(directory):
    spoilt = mutants()
    assert len(spoilt) >= 1000, len(spoilt)
    understood, misunderstood = 0, []
    for mutant in spoilt:
        found = diagnose(directory / "spec.yaml", mutant.text)
        assert found, f"accepted with line {mutant.line}:\n{mutant.text.splitlines()[mutant.line - 1]}"
        here = [d for d in found if d.position.line == mutant.line]
        shown = "\n".join([mutant.text.splitlines()[mutant.line - 1], *map(str, found)])
        assert here, shown
        assert all(d.code in mutant.codes for d in found), shown
        if mutant.meant:
            if any(f"did you mean '{mutant.meant}'?" in d.hint for d in here):
                understood += 1
            else:
                misunderstood.append(shown)
    share = understood / (understood + len(misunderstood))
    assert share >= 0.95, f"{share:.1%} of {understood + len(misunderstood)}\n" + "\n".join(
        misunderstood[:20]
    )
    print(f"{len(spoilt)} mutants; {share:.1%} of {understood + len(misunderstood)} typos understood")
