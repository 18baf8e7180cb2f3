"""What is said where a device's memory does not suffice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tunebuild.errors import TunebuildError, fail


def does_not_fit(what: str, field: str) -> TunebuildError:
    """The error for something that the device's memory has no room for.

    Args:
        what: does not fit, such as "a row of 812 tokens".
        field: of the spec, with a smaller value of which it would.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    where = f"in process {int(os.environ['RANK']) + 1} of {count}, " if count > 1 else ""
    text = f"{where}{what} does not fit into the device's memory"
    return fail("out-of-memory", text, "lower it, or use a larger device", path=field)


@contextmanager
def exhaustion_named() -> Iterator[None]:
    """Say in which process memory ran out, wherever that is.

    Raises:
        TunebuildError: it did.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise does_not_fit(f"training ({error})", "tuning.micro_batch_size") from error
