"""Keeps the libraries from talking while we do."""

from __future__ import annotations

import logging

import transformers


def quieten_libraries() -> None:
    """Bars and warnings of the libraries would tear our own progress apart."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for name in ("bitsandbytes", "peft", "trl", "accelerate", "datasets", "torch"):
        logging.getLogger(name).setLevel(logging.ERROR)
