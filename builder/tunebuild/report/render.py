"""Writes the report and the card."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from jinja2 import Environment

from tunebuild import __version__
from tunebuild.pages import page_environment
from tunebuild.printable import is_printable, printable, printable_json
from tunebuild.report.curves import HEIGHT, WIDTH
from tunebuild.report.facts import Facts

REPORT, CARD = "report.html", "README.md"
"""Names of the two files."""

TEMPLATES = (("report", "report.html.j2"), ("card", "README.md.j2"))
"""What they are rendered from, below ``templates/``."""

_SHOWN = 8  # tensors in the table of what moved most

_LABELS = {
    "eval_loss": "loss",
    "eval_perplexity": "perplexity",
    "eval_accuracy": "token accuracy",
    "exact_match": "exact match",
    "token_f1": "token F1",
    "rouge_l": "ROUGE-L",
    "merge_kl": "divergence from the trained model (KL, nats)",
    "merge_lost": "share of the training that was lost",
    "merge_top1": "same token as the trained model",
    "training_kl": "divergence of training from the base (KL, nats)",
    "regression_kl": "divergence from the base on general prompts (KL, nats)",
    "regression_top1": "same token as the base on general prompts",
}
_SHARES = ("accuracy", "exact_match", "top1", "lost")


@dataclass(frozen=True, slots=True)
class Row:
    """A figure in a table: base and tuned value where both are known, its gate, and whether that is kept."""

    name: str
    label: str
    base: str
    tuned: str
    gate: str
    passed: bool


def render_report(facts: Facts, provenance: Mapping[str, Any]) -> str:
    """One self-contained HTML page.

    Args:
        facts: what was recorded.
        provenance: ``spec`` (effective), ``inputs`` by stage, and ``sources``: names of files of rows.
    """
    return (
        environment("report", html=True)
        .get_template("report.html.j2")
        .render(**_shared(facts, provenance), plot=(WIDTH, HEIGHT), spec_yaml=yaml_text(provenance["spec"]))
    )


def render_card(facts: Facts, provenance: Mapping[str, Any]) -> str:
    """A model card for the Hugging Face hub."""
    shared = _shared(facts, provenance)
    metadata = yaml_text(hub_metadata(facts, provenance["spec"]))
    return environment("card", html=False).get_template("README.md.j2").render(**shared, metadata=metadata)


def _shared(facts: Facts, provenance: Mapping[str, Any]) -> dict[str, Any]:
    spec = provenance["spec"]
    changes = facts.merge["relative_change"]
    moved = sorted(changes.items(), key=lambda item: (-item[1], item[0]))
    return {
        "facts": facts,
        "spec": spec,
        "inputs": provenance["inputs"],
        "version": __version__,
        "answers": list(figures_of(facts, spec, ("eval_", "exact_match", "token_f1", "rouge_l"))),
        "merge": list(figures_of(facts, spec, ("merge_", "training_"))),
        "regression": list(figures_of(facts, spec, ("regression_",))),
        "tasks": list(_task_rows(facts, spec)),
        "sources": [
            {"name": provenance["sources"][int(number)], **values}
            for number, values in sorted(facts.evaluated.get("sources", {}).items(), key=lambda s: int(s[0]))
        ],
        "unshown": [
            f"{provenance['sources'][part['source']]}: {part['words']}"
            for part in facts.stats.get("unused", ())
        ],
        "apart": facts.adapter_apart,
        "proof": proof_of(facts),
        "moved": moved[:_SHOWN],
        "moved_median": statistics.median(changes.values()) if changes else 0.0,
    }


def figures_of(facts: Facts, spec: Mapping[str, Any], prefixes: tuple[str, ...]) -> Iterator[Row]:
    """The figures that are known and whose names begin in one of these ways."""
    gates = spec["gates"]
    for name, label in _LABELS.items():
        if not name.startswith(prefixes) or name not in facts.metrics:
            continue
        base = facts.metrics.get(f"base_{name.removeprefix('eval_')}")
        value = facts.metrics[name]
        limit = dict(gates.get(name) or {})
        if limit.get("max") == "auto":
            limit["max"] = facts.metrics.get(f"{name}_limit")
        gate, passed = held(limit, value)
        yield Row(name, label, "" if base is None else figure(name, base), figure(name, value), gate, passed)


def proof_of(facts: Facts) -> str:
    """What was proven of the weights, tensor by tensor; empty for builds that did not."""
    proof = facts.evaluated.get("proof")
    if not proof:
        return ""
    kinds = (
        ("updated", "are the base plus the trained update within the rounding of their type"),
        ("rows", "are the base with the rows that were trained"),
        ("whole", "are what was trained, rounded once"),
        ("held", "are the base as 4 bits hold it, rounded once"),
        ("kept", "are the base's byte for byte"),
    )
    counts = "; ".join(f"{proof[kind]:,} {what}" for kind, what in kinds if proof.get(kind))
    text = f"Every tensor was checked: {counts}."
    if proof["adapter_tensors"]:
        text += f" Each of the {proof['adapter_tensors']:,} trained tensors is used exactly once."
    if proof["worst"]:
        text += (
            f" The largest deviation is {proof['worst_share']:.3g} of what rounding allows, in"
            f" {proof['worst']};"
            f" what PEFT's own layers add to random inputs is met to {proof['probe_share']:.3g} of that;"
            f" rounding took at most {proof['lost_share']:.2g} of an update, in {proof['lost']}."
        )
    if "served_deviation" in proof:
        text += f" What the loaded adapter's layers add is met to {proof['served_deviation']:.2g} of itself."
    return text


def _task_rows(facts: Facts, spec: Mapping[str, Any]) -> Iterator[Row]:
    for task, found in facts.evaluated.get("tasks", {}).items():
        gates = spec["gates"]["tasks"].get(task, {})
        for name, value in found.items():
            gate, passed = held(gates.get(name, {}), value["tuned"])
            yield Row(name, task, figure(name, value["base"]), figure(name, value["tuned"]), gate, passed)


def held(limit: Mapping[str, float | None], value: float) -> tuple[str, bool]:
    """A gate in words, and whether a value keeps it."""
    low, high = limit.get("min"), limit.get("max")
    ends = (("at least", low), ("at most", high))
    gate = " and ".join(f"{word} {end:g}" for word, end in ends if end is not None)
    return gate, (low is None or value >= low) and (high is None or value <= high)


def figure(name: str, value: float) -> str:
    """A value as people read it: shares in per cent, small numbers in powers of ten."""
    if name.endswith(_SHARES):
        return f"{value:.3g} %" if 0 < (value := 100 * value) < 0.1 else f"{value:.1f} %"
    if value and abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:,.3f}" if abs(value) < 1000 else f"{value:,.0f}"


def size(count: float) -> str:
    """Bytes for people, in powers of ten."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def hub_metadata(facts: Facts, spec: Mapping[str, Any]) -> dict[str, Any]:
    """What the hub reads. A base beside the spec has no name there, so none is given."""
    base, method = spec["model"]["base"], facts.result["method"]
    metadata: dict[str, Any] = {
        "library_name": "peft" if facts.adapter_apart else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["tunebuild", method, "adapter" if facts.adapter_apart else "merged"],
    }
    if not base.startswith(("./", "/")) and base.count("/") == 1:
        relation = "adapter" if facts.adapter_apart else "finetune"
        metadata |= {"base_model": base, "base_model_relation": relation}
    results = [
        {"type": name, "name": _LABELS[name], "value": float(f"{facts.metrics[name]:.4g}")}
        for name in ("eval_loss", "eval_perplexity", "eval_accuracy", "exact_match", "token_f1", "rouge_l")
        if name in facts.metrics and math.isfinite(facts.metrics[name])
    ]
    if facts.held_out:
        dataset = {"name": "rows held out by the spec", "type": "held-out"}
        task = {"type": "text-generation", "name": "Text Generation"}
        metadata["model-index"] = [
            {"name": spec["name"], "results": [{"task": task, "dataset": dataset, "metrics": results}]}
        ]
    return metadata


def environment(folder: str, *, html: bool) -> Environment:
    """Jinja for a folder of ``templates/``, with the filters that reports use."""
    environment = page_environment(folder, html=html)
    environment.filters.update(
        figure=lambda value, name: figure(name, value), size=size, cell=_cell, pretty=_pretty, shown=_shown
    )
    return environment


def _cell(text: str) -> str:
    """Text in a cell of a Markdown table: one line, and nothing that Markdown or HTML would read."""
    escaped = _shown(text).replace("&", "&amp;").replace("<", "&lt;")
    for character in "\\`*_|[]":
        escaped = escaped.replace(character, "\\" + character)
    return " ".join(escaped.split())


def _shown(text: str) -> str:
    """Without the white space around it, and all visible: an untrained model writes any control character."""
    return printable(text.strip())


def yaml_text(value: Any) -> str:
    """A value as YAML, in the order that it has."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return printable(text)


class _Dumper(yaml.SafeDumper):
    """Quotes texts with hidden characters in the style that has escapes."""


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    style = None if is_printable(value) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style)


_Dumper.add_representer(str, _text)


def _pretty(value: Any) -> str:
    return printable_json(value, indent=2, sort_keys=True)
