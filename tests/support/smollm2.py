"""SmolLM2-135M-Instruct as the quickstart makes it: fetched once by pinned hash, and kept elsewhere."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.quickstart import EXAMPLES


def smollm2() -> Path:
    """Its directory; skips the test where it is neither kept nor to be had, but for ``CI=true``."""
    cache = _cache()
    cache.mkdir(parents=True, exist_ok=True)
    directory = cache / "smollm2-135m-instruct"
    with (cache / "smollm2.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # It looks at the hash of what is there, so what another version of the script made is made again.
        argv = [sys.executable, EXAMPLES / "quickstart" / "make_base.py", directory]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=900)
    if done.returncode:
        if os.environ.get("CI") == "true":
            pytest.fail(done.stderr)
        pytest.skip(done.stderr)
    return directory


def _cache() -> Path:
    if own := os.environ.get("TUNEBUILD_TEST_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tunebuild-tests"
