"""``generation_config.json``: where other servers stop, and how they sample."""

from __future__ import annotations

import json
from pathlib import Path

from tunebuild.prompt import load_prompt
from tunebuild.serve.bundle import Bundle

FILE_NAME = "generation_config.json"


def generation_config(model: Path, prompt: Path, settings: Bundle) -> str:
    """Stop where the image's server stops, and sample as it does: the base's own options are not those.

    Args:
        model: the model's directory, whose padding and first token are kept.
        prompt: the ``prompt/`` directory.
        settings: what the image's endpoint is told.
    """
    path = model / FILE_NAME
    known = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    kept = {name: value for name, value in known.items() if name in ("bos_token_id", "pad_token_id")}
    defaults = settings.defaults
    config = {
        **kept,
        "eos_token_id": sorted(load_prompt(prompt).stop_ids),
        "do_sample": defaults.temperature > 0,
        "temperature": defaults.temperature,
        "top_p": defaults.top_p,
    }
    return json.dumps(config, indent=2) + "\n"
