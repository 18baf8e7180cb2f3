"""The quickstart as tests of the whole path use it: the command line, and a built copy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str


def tunebuild(*arguments: object, env: dict[str, str] | None = None, timeout: float = 600) -> Done:
    """Run the command as a user does."""
    argv = [sys.executable, "-c", "from tunebuild.cli import main; main()", *map(str, arguments)]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=timeout, env={**os.environ, **(env or {})}
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


def copy_quickstart(directory: Path) -> Path:
    """A private copy of the quickstart, base model included; returns its spec."""
    shutil.copytree(EXAMPLES / "toy", directory, ignore=shutil.ignore_patterns("base", "dist"))
    subprocess.run([sys.executable, directory / "make_base.py"], check=True)
    return directory / "spec.yaml"


@dataclass(frozen=True)
class Quickstart:
    """The built quickstart."""

    spec: Path
    store: Path
    digest: str
    err: str

    @property
    def archive(self) -> Path:
        """What the build wrote."""
        return self.spec.parent / "dist" / "larder-desk.tar"

    def run(self, verb: str, *arguments: object, **options: object) -> Done:
        """A verb on this spec and store."""
        return tunebuild(verb, self.spec, "--store", self.store, *arguments, **options)


def build_quickstart(root: Path) -> Quickstart:
    """Build it from nothing, with the real libraries."""
    spec = copy_quickstart(root / "one")
    done = tunebuild("build", spec, "--store", root / "store")
    assert done.code == 0, done.err
    return Quickstart(spec, root / "store", done.out.strip(), done.err)
