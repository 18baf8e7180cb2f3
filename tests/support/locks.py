"""Locks of specs that need no mirror and no hub."""

from __future__ import annotations

from typing import Any

from tunebuild.lock.record import SpecRecord
from tunebuild.lock.spec_lock import RuntimeLock, SpecLock

DIGESTS = [f"sha256:{c * 64}" for c in "abcdef"]


def a_runtime(**changes: Any) -> RuntimeLock:
    """Of two Debian packages and two wheels."""
    value = {
        "platform": "linux/amd64",
        "suite": "bookworm",
        "python": "3.11",
        "requirements": ["torch>=2"],
        "packages": {"libc6": f"2.36-9 {DIGESTS[0]}", "bash": f"5.2 {DIGESTS[1]}"},
        "wheels": {"torch": f"2.13.0 {DIGESTS[1]}", "attrs": f"1 {DIGESTS[1]}"},
    }
    return RuntimeLock.model_validate({**value, **changes})


def a_lock(**changes: Any) -> SpecLock:
    """Of a model and a dataset on a hub, and two files."""
    value = {
        "tunebuild": "0.1.0",
        "spec": SpecRecord(
            digest=DIGESTS[3], fields={"name": "x", "tuning.epochs": 3}, defaults={"merge.strategy": "auto"}
        ),
        "template": {"chatml": DIGESTS[0]},
        "files": {"b.jsonl": DIGESTS[0], "a.jsonl": DIGESTS[1]},
        "model": {
            "base": "org/m",
            "revision": "main",
            "commit": "0" * 40,
            "files": {"config.json": DIGESTS[0]},
        },
        "datasets": {"org/d@main/x": {"base": "org/d", "commit": "1" * 40, "files": {"x": DIGESTS[2]}}},
        "runtime": a_runtime(),
    }
    return SpecLock.model_validate({**value, **changes})
