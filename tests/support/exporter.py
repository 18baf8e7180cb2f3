"""Where tests find llm-compressor: `make test` sets its environment up beside the tests' own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tunebuild.errors import TunebuildError
from tunebuild.export.tool import Tool, find_tool


def need_exporter() -> Tool:
    """The tool. On CI it must be there; elsewhere a missing one skips the test, with the reason."""
    try:
        return find_tool(Path(f"{sys.prefix}-export") / "bin" / "python")
    except TunebuildError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{error}; or 'make test'")
