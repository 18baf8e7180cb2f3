"""What whoever deploys the server relies on: paths, variables, metrics, and how long it takes to end.

Imports nothing, so that manifests can be written where the server's libraries are not installed.
"""

from __future__ import annotations

import math

LIVE = "/livez"
"""Answers 200 as soon as the port is open, also while the model loads."""
READY = "/readyz"
"""Answers 200 while requests are taken, else 503 with the reason."""
METRICS = "/metrics"
"""Prometheus' text format."""

RUNNING = "tunebuild_requests_running"
"""Gauge: answers being generated."""
WAITING = "tunebuild_requests_waiting"
"""Gauge: answers that wait for a place in the batch."""

API_KEYS = "TUNEBUILD_API_KEYS"  # a variable's name
"""Keys, separated by commas or white space."""
API_KEYS_FILE = "TUNEBUILD_API_KEYS_FILE"
"""Path of a file with one key a line, which is read again when it changes."""
LOG = "TUNEBUILD_LOG"
"""``text`` or ``json``."""

LAME_DUCK_SECONDS = 2.0
"""After SIGTERM the port still answers, with 503, until load balancers have seen :data:`READY`."""
CLOSE_SECONDS = 5
"""Answers that outlast the drain are told to end; connections that are still open after this are closed."""
ENGINE_SECONDS = 10
"""How long the engine's end is waited for."""


def end_seconds(drain_seconds: float) -> int:
    """The most that a server takes from SIGTERM to its exit, in whole seconds.

    Args:
        drain_seconds: ``serving.limits.drain_seconds``.
    """
    return math.ceil(drain_seconds) + CLOSE_SECONDS + ENGINE_SECONDS
