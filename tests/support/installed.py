"""tunebuild as others have it: from its wheel, without packages that were not asked for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

from support.quickstart import Done
from tunebuild.extras import MODULES

ROOT = Path(__file__).parents[2]
# Runs the command where some modules cannot be imported, as if they were not installed.
_WITHOUT = """
import json, sys
absent = set(json.loads(sys.argv.pop(1)))
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from tunebuild.cli import main
main()
"""


def run_with(extras: set[str], *arguments: object) -> Done:
    """The command where only these extras are installed."""
    wanted = {module for extra in extras for module in MODULES[extra]}
    absent = sorted({module for modules in MODULES.values() for module in modules} - wanted - {"packaging"})
    argv = [sys.executable, "-c", _WITHOUT, json.dumps(absent), *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def install_core(directory: Path) -> Path:
    """Build the wheel and put it, with what it requires and nothing else, into a new environment.

    What it requires is taken from the environment that runs the tests, so nothing is downloaded.

    Returns:
        The ``tunebuild`` command.
    """
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory / "venv"], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    target = directory / "venv" / "lib" / version / "site-packages"
    wheel = next(directory.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
        metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(metadata).decode().partition("\n\n")[0].splitlines()
    needed = [x.partition(": ")[2] for x in lines if x.startswith("Requires-Dist: ") and "extra ==" not in x]
    _copy(needed, target, set())
    command = directory / "venv" / "bin" / "tunebuild"
    command.write_text(f"#!{directory}/venv/bin/python\nfrom tunebuild.cli import main\nmain()\n")
    command.chmod(0o755)
    return command


def run_installed(command: Path, *arguments: object) -> Done:
    """The installed command, out of reach of this checkout."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["PATH"] = str(command.parent)  # no podman either
    argv = [str(command), *map(str, arguments)]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, env=environment, cwd=command.parent
    )
    return Done(done.returncode, done.stdout, done.stderr)


def _copy(requirements: list[str], target: Path, seen: set[str]) -> None:
    """Distributions and, with the extras that are asked for, what they require."""
    for text in requirements:
        wanted = Requirement(text)
        if wanted.name.lower() in seen or not _applies(wanted, set()):
            continue
        seen.add(wanted.name.lower())
        found = distribution(wanted.name)
        for file in found.files or ():
            source = Path(str(found.locate_file(file)))
            if ".." in file.parts or "__pycache__" in file.parts or not source.is_file():
                continue
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target / file)
        inner = [r for r in found.requires or () if _applies(Requirement(r), wanted.extras)]
        _copy([r.partition(";")[0] for r in inner], target, seen)


def _applies(requirement: Requirement, extras: set[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras | {""})
