"""The one wait for an endpoint that starts, in a container or as a process."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable

from tunebuild.errors import fail

#: Seconds that an endpoint is given where nobody says otherwise.
READY_WITHIN = 120.0


def wait_until_ready(
    url: str,
    alive: Callable[[], bool],
    seconds: float = READY_WITHIN,
    last_words: Callable[[], str] = lambda: "see its log",
) -> float:
    """Wait for ``/readyz``; returns the seconds it took.

    Args:
        url: the endpoint's root.
        alive: whether the server, or its container, runs.
        seconds: how long to wait.
        last_words: what it printed last, or where that is.

    Raises:
        TunebuildError: ``server-ended`` or ``not-ready``, with its own reason and its last words.
    """
    started = time.monotonic()
    reason = "it did not answer"
    while time.monotonic() - started < seconds:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):  # noqa: S310 - http only, our own URL
                return time.monotonic() - started
        except urllib.error.HTTPError as error:
            reason = error.read().decode("utf-8", "replace").strip()
        except OSError:
            pass
        # A server whose model can never load says so and ends; waiting longer would not help.
        if not alive():
            raise fail("server-ended", "the server ended before it was ready", last_words()) from None
        time.sleep(0.05)
    message = f"{url} was not ready within {seconds:.0f} s: {reason}"
    raise fail("not-ready", message, f"--ready-within gives it longer; {last_words()}")
