"""Who else is told a training's metrics: transformers' callbacks, whose failures are said by name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from tunebuild.errors import fail


def reporters(names: Sequence[str]) -> list[TrainerCallback]:
    """The callbacks that report; none in processes that train with the first one, which speaks for all.

    Raises:
        TunebuildError: one cannot be made; and later, from any of its events, that it failed.
    """
    return [] if int(os.environ.get("RANK", "0")) else [_reporter(name) for name in names]


def _reporter(name: str) -> TrainerCallback:
    with _failure_named(name):
        callback: TrainerCallback = INTEGRATION_TO_CALLBACK[name]()
    for event in dir(TrainerCallback):
        if event.startswith("on_"):
            setattr(callback, event, _failure_named(name)(getattr(callback, event)))
    return callback


@contextmanager
def _failure_named(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # any library, server or account may be behind it
        said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        hint = "see its own settings, or leave it out"
        raise fail("reporter", f"{name} failed: {said}", hint, path="tuning.report_to") from error
