"""The model card of an export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunebuild import __version__
from tunebuild.report.facts import Facts
from tunebuild.report.render import environment, figure, held, hub_metadata, yaml_text

_LABELS = {
    "kl": "divergence from the trained model (KL, nats)",
    "lost": "share of the training that was lost",
    "top1": "same token as the trained model",
    "eval_loss": "loss",
    "eval_perplexity": "perplexity",
    "eval_accuracy": "token accuracy",
}


@dataclass(frozen=True, slots=True)
class _Row:
    label: str
    merged: str
    exported: str
    gate: str


def render_export_card(facts: Facts, provenance: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """A model card for the Hugging Face hub.

    Args:
        facts: what the build's stages recorded.
        provenance: as the image carries it.
        record: what ``export.json`` says.
    """
    spec, export, found = provenance["spec"], record["export"], record["figures"]["exported"]
    metadata = hub_metadata(facts, spec)
    metadata["tags"] = ["tunebuild", facts.result["method"], export["format"], "compressed-tensors"]
    # The hub's results are of the merged weights, and these are others.
    metadata.pop("model-index", None)
    rows = [
        _Row(
            label,
            figure(name, record["figures"]["merged"][name]),
            figure(name, found[name]),
            held(export["gates"].get(name) or {}, found[name])[0],
        )
        for name, label in _LABELS.items()
    ]
    template = environment("export", html=False).get_template("README.md.j2")
    return template.render(
        metadata=yaml_text(metadata), spec=spec, record=record, rows=rows, version=__version__
    )
