"""The environment that a tool is installed in, apart from ours."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tunebuild import resources
from tunebuild.errors import fail

#: Packages whose versions an export depends on.
PACKAGES = ("llmcompressor", "compressed-tensors", "torch", "transformers")

_VERSIONS = (
    "import json, sys; from importlib.metadata import version; "
    "print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
)


@dataclass(frozen=True, slots=True)
class Tool:
    """llm-compressor where it is installed.

    Attributes:
        python: the interpreter of its environment.
        versions: of the packages that matter, by name.
    """

    python: Path
    versions: dict[str, str]


def requirements() -> Path:
    """What such an environment holds, as a requirements file of pip."""
    return resources.path("templates", "export", "requirements.txt")


def find_tool(python: Path | None) -> Tool:
    """Ask an interpreter for its packages. Takes some hundredths of a second: nothing is imported.

    Args:
        python: the interpreter; ``None`` if nobody named one.

    Raises:
        TunebuildError: there is none, or llm-compressor is not installed there.
    """
    hint = (
        "make an environment for it: python3 -m venv exporter && exporter/bin/pip install -r "
        "$(tunebuild export --requirements), then --python exporter/bin/python"
    )
    if python is None:
        message = "exports are made by llm-compressor, which needs an environment of its own"
        raise fail("no-exporter", message, hint)
    try:
        # -I: neither our PYTHONPATH nor the user's own packages may stand in for what is installed there.
        done = subprocess.run(
            [python, "-I", "-c", _VERSIONS, *PACKAGES], capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise fail("no-exporter", f"{python} cannot be run: {error.strerror}", hint) from error
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise fail("no-exporter", f"{python} has no llm-compressor: {reason}", hint)
    versions: dict[str, str] = json.loads(done.stdout)
    return Tool(python, versions)
