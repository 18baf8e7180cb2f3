"""Puts an adapter on a base. The one place where the server needs PEFT, which only images that carry an
adapter have.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open

from tunebuild.errors import fail

_WEIGHTS = "adapter_model.safetensors"


def add_adapter(model: Any, directory: Path) -> Any:
    """A model of transformers with the adapter of a directory in PEFT's format.

    Raises:
        TunebuildError: ``adapter-incomplete`` if the adapter is not there, or is not of this model.
    """
    weights = directory / _WEIGHTS
    if not weights.is_file():  # PEFT would look for a pickle, and then on the hub
        raise fail("adapter-incomplete", f"{directory} has no {_WEIGHTS}", "build again")
    try:
        adapted = PeftModel.from_pretrained(model, directory)
    except (RuntimeError, ValueError) as error:  # another shape, or no module of a name that it has
        message = f"the adapter does not fit the model: {str(error).strip().splitlines()[0]}"
        raise fail("adapter-incomplete", message, "it belongs to another base") from error
    with safe_open(weights, framework="pt") as file:
        stored = set(file.keys())
    # PEFT passes over names that it does not know, and leaves what is missing at its first values.
    expected = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    frozen = {name for name in stored if name.endswith(".base_layer.weight")}  # of a head with an adapter
    if unlike := sorted((stored - frozen) ^ expected):
        word = "lacks" if unlike[0] in expected else "has more than the model takes:"
        raise fail("adapter-incomplete", f"the adapter {word} {unlike[0]}", "it belongs to another base")
    return adapted
