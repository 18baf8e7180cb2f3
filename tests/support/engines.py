"""Where tests find an engine: vLLM has an environment of its own, which `make test` sets up."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

#: Names of all engines.
ENGINES = ("transformers", "vllm")


def interpreter_of(engine: str) -> Path:
    """The interpreter that has an engine. On CI it must be there; elsewhere its tests are skipped."""
    if engine == "transformers":
        return Path(sys.executable)
    python = Path(f"{sys.prefix}-{engine}", "bin", "python")
    if not python.is_file():
        reason = f"{engine} is not installed in {python.parents[1]}; 'make test' does that"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return python
