"""An image on one screen: what it is, what it was made from, how good it is and how to start it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from tunebuild.grammar import counted
from tunebuild.report.facts import Facts
from tunebuild.report.render import figures_of

FIGURES = "figures.json"
"""Name of the file in the image, beside the report."""

_KEY = ("eval_loss", "eval_accuracy", "exact_match", "token_f1", "rouge_l", "merge_kl", "merge_lost")


def render_figures(facts: Facts, provenance: Mapping[str, Any]) -> str:
    """What a summary tells of the build, as JSON."""
    figures = {
        "rows": facts.stats["rows"],
        "tokens": facts.stats["tokens"],
        "method": facts.result["method"],
        "steps": facts.result["steps"],
        "strategy": facts.evaluated["strategy"],
        "held_out": facts.held_out,
        "proof": facts.evaluated.get("proof"),
        "answers": facts.texts["samples"],
        "figures": [asdict(row) for row in figures_of(facts, provenance["spec"], _KEY)],
    }
    return json.dumps(figures, indent=2, ensure_ascii=False) + "\n"


def as_text(
    provenance: Mapping[str, Any], built: Mapping[str, Any] | None, identity: tuple[str, str], place: str
) -> str:
    """Lines for people.

    Args:
        provenance: the image's ``provenance.json``.
        built: its :data:`FIGURES`; an image from before there were such has none.
        identity: what identifies the image: what that is called, and itself.
        place: the archive or layout that it was read from; empty if a container runtime has it.
    """
    return "".join(f"{name:<9} {line}\n" for name, line in _lines(provenance, built, identity, place))


def _lines(
    provenance: Mapping[str, Any], built: Mapping[str, Any] | None, identity: tuple[str, str], place: str
) -> Iterator[tuple[str, str]]:
    spec, image = provenance["spec"], provenance["inputs"]["image"]
    settings, prompt = image["settings"], spec["prompt"]
    yield "name", spec["name"] + (f": {spec['description']}" if spec.get("description") else "")
    yield "image", image["reference"]
    yield identity
    revision = spec["model"].get("revision")
    yield "base", spec["model"]["base"] + (f" at {revision}" if revision else "")
    if built is None:
        yield "figures", "not in this image, which an older tunebuild made; --report FILE may have them"
    else:
        yield from _figures(provenance, built)
    template = prompt["template"]
    named = template if isinstance(template, str) else template["file"]
    system = f"; system: {' '.join(prompt['system'].split())[:60]}" if prompt.get("system") else ""
    yield "prompt", f"{named}, {settings['prompt_digest'][:19]}{system}"
    limits = settings["limits"]
    yield "serving", f"{runs_on(settings)}, {settings['dtype']}, context of {limits['context']:,} tokens"
    load = f"docker load -i {place} && " if place.endswith(".tar") else ""
    port = settings["port"]
    yield "run", f"{load}docker run --rm {gpu_options(settings)}-p {port}:{port} {image['reference']}"


def runs_on(settings: Mapping[str, Any]) -> str:
    """Engine and device."""
    return f"{settings.get('engine', 'transformers')} on {settings['device']}"


def gpu_options(settings: Mapping[str, Any]) -> str:
    """What ``docker run`` and ``podman run`` need besides, with a space behind it."""
    return "--gpus all " if settings["device"] == "cuda" else ""


def _figures(provenance: Mapping[str, Any], built: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    tuning, rows = provenance["spec"]["tuning"], built["rows"]
    yield (
        "rows",
        f"{rows['train']:,} trained on, {rows['eval']:,} held out, {rows['rejected']:,} not used; "
        f"{built['tokens']:,} tokens, from {', '.join(dict.fromkeys(provenance['sources']))}",
    )
    lora, peft = tuning["lora"], tuning.get("peft")
    adapter = f", LoRA r {lora['r']}, alpha {lora['alpha']}" if built["method"] in ("lora", "qlora") else ""
    if built["method"] == "peft" and peft:
        adapter = f", {peft['type']}"
    yield (
        "training",
        f"{built['method']}, {counted(built['steps'], 'step')}{adapter}; merge: {built['strategy']}",
    )
    of = "held-out rows" if built["held_out"] else "training rows"
    for number, row in enumerate(built["figures"]):
        change = f"{row['base']} -> {row['tuned']}" if row["base"] else row["tuned"]
        missed = "" if row["passed"] else f", the gate says {row['gate']}"
        of_what = f", on {of}, base -> tuned" if row["base"] and not number else ""
        yield "" if number else "figures", f"{row['label']}: {change}{missed}{of_what}"
