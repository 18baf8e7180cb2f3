"""Prometheus metrics of one server."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tunebuild.serve.contract import RUNNING, WAITING

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counters of a server, in a registry of its own.

    Args:
        running: number of requests inside, asked when metrics are read.
        waiting: number of those that wait.
        ready: 1 while ready.
    """

    def __init__(
        self, running: Callable[[], float], waiting: Callable[[], float], ready: Callable[[], float]
    ) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "tunebuild_requests",
            "Requests by route and status.",
            ("route", "status"),
            registry=self._registry,
        )
        self.tokens = Counter("tunebuild_tokens", "Tokens read and made.", ("kind",), registry=self._registry)
        self.seconds = Histogram(
            "tunebuild_request_seconds",
            "Time to the end of an answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.first_token = Histogram(
            "tunebuild_first_token_seconds",
            "Time to the first token.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        for name, help_text, read in (
            (RUNNING, "Requests inside.", running),
            (WAITING, "Requests that wait for a place in the batch.", waiting),
            ("tunebuild_ready", "1 while the endpoint is ready.", ready),
        ):
            Gauge(name, help_text, registry=self._registry).set_function(read)

    def render(self) -> bytes:
        """Text exposition format."""
        return generate_latest(self._registry)
