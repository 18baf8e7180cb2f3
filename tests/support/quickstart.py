"""The quickstart as tests of the whole path use it: the command line, and a built copy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tunebuild.cli import app
from tunebuild.cli._errors import run_reporting_errors

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


def tunebuild_here(capsys: pytest.CaptureFixture[str], *arguments: object) -> Done:
    """Run the command in this process, which spares it the imports of the training libraries."""
    code = run_reporting_errors(lambda: app([*map(str, arguments)], standalone_mode=False))
    said = capsys.readouterr()
    assert "Traceback" not in said.err, said.err
    return Done(code, said.out, said.err)


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

    @classmethod
    def at(cls, root: Path) -> Quickstart:
        """The one that was built in a directory, or copied to it."""
        digest, err = (root / name for name in ("digest", "log"))
        return cls(root / "one" / "spec.yaml", root / "store", digest.read_text(), err.read_text())

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
    (root / "log").write_text(done.err)
    (root / "digest").write_text(done.out.strip())
    return Quickstart.at(root)
