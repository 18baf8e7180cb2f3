"""Which attention computes what a base was published to compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: Caps the logits of attention, which torch's scaled dot-product attention has no argument for.
_SOFT_CAPS = ("attn_logit_softcapping", "attn_logit_softcap")


def attention_of(directory: Path) -> str:
    """The attention function to load a checkpoint with: ``sdpa``, or ``eager`` where that would be wrong.

    Eager attention is the reference that every architecture comes with. It is used where the architecture has
    no other (gpt-oss, BLOOM), and where SDPA would leave out a cap of the logits without an error (Gemma 2).
    """
    from transformers import AutoConfig

    from tunebuild.serve.engines.classes import model_class

    config = AutoConfig.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    if caps_logits(config.get_text_config().to_dict()):
        return "eager"
    try:
        architecture = model_class(config)._model_mapping[type(config)]
    except KeyError:
        return "sdpa"  # it is no causal language model, which loading says in its own words
    return "sdpa" if getattr(architecture, "_supports_sdpa", True) else "eager"


def caps_logits(config: dict[str, Any]) -> bool:
    """Whether a ``config.json`` asks for soft-capping of attention logits."""
    text = config.get("text_config") or config
    return any(text.get(name) for name in _SOFT_CAPS)


def attention_inputs(config: dict[str, Any]) -> dict[str, str]:
    """What of the attention belongs in the key of a stage that runs the model.

    Computed without the cap, an output is another model's. An architecture without SDPA has no other output.
    """
    return {"attention": "eager"} if caps_logits(config) else {}
