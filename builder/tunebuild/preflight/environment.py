"""What a training needs of the environment it runs in, found out without loading torch."""

from __future__ import annotations

import os
from importlib.metadata import version
from importlib.util import find_spec

from packaging.version import Version

from tunebuild.errors import fail
from tunebuild.spec import Spec

_BOARD = "TENSORBOARD_LOGGING_DIR"


def check_environment(spec: Spec) -> None:
    """Refuse a training that would fail once rows are prepared and the base is fetched.

    Raises:
        TunebuildError: a reporter is not installed or would write for nobody, or torch is too old to evaluate
            what is split.
    """
    tuning = spec.tuning
    for name in tuning.report_to:
        if find_spec(name) is None:
            raise fail("reporter", f"{name} is not installed", f"pip install {name}", path="tuning.report_to")
    if "tensorboard" in tuning.report_to and not os.environ.get(_BOARD):
        # It would write beside the checkpoints, which go when the training is done.
        raise fail("reporter", f"{_BOARD} is not set", "name a directory there", path="tuning.report_to")
    # TRL takes the head's weight without calling the head. Before, FSDP2 waited for that call until the next
    # backward pass, and between there may be an evaluation and a checkpoint.
    if tuning.shard and spec.data.eval.holds_out and Version(torch := version("torch")) < Version("2.13"):
        text = f"with rows that are held out it needs torch 2.13, and this is {torch}"
        raise fail("shard", text, "hold out none, or update torch", path="tuning.shard")
