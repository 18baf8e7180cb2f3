"""Which class of transformers a checkpoint is loaded as."""

from __future__ import annotations

from typing import Any


def model_class(config: Any) -> Any:
    """The auto class that makes a model which generates text of a configuration.

    A multimodal configuration may have no causal language model of its own (Mistral 3). It is loaded with its
    vision tower, which text does not run through.
    """
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    kind = type(config)
    others = AutoModelForImageTextToText._model_mapping
    known = kind in AutoModelForCausalLM._model_mapping
    return AutoModelForImageTextToText if not known and kind in others else AutoModelForCausalLM
