"""Compiles packages with the image's own interpreter, so that a container starts in half the time.

The byte code carries a hash that is never checked instead of a time stamp: equal sources give equal bytes,
and a read-only container believes it without looking at the sources.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tunebuild.errors import fail
from tunebuild.image.architecture import Architecture

# Half of transformers is models that one image does not serve. Those of an unlisted architecture are
# compiled when the server imports them, a tenth of a second each.
_MODELS = frozenset(
    "auto llama mistral falcon qwen2 qwen3 gemma gemma2 gemma3 phi phi3 gpt2 gpt_neox encoder_decoder".split()  # noqa: SIM905
)
# Two thirds of the sources, none of which a start of the server was seen to import. Whatever is missing
# here costs time, never correctness: Python compiles it again.
_NOT_IMPORTED = tuple(
    """
    torch/onnx/ torch/testing/ torch/utils/benchmark/ torch/utils/tensorboard/ torch/_inductor/ torch/_vendor/
    torch/ao/quantization/fx/ torch/ao/ns/ torch/ao/pruning/ torch/distributed/elastic/
    torch/distributed/checkpoint/ torch/distributed/pipelining/ torch/distributed/benchmarks/
    transformers/pipelines/ transformers/cli/ transformers/exporters/ transformers/data/
    sympy/physics/ sympy/stats/ sympy/geometry/ sympy/vector/ sympy/plotting/ sympy/holonomic/ sympy/crypto/
    sympy/diffgeom/ sympy/categories/ sympy/sandbox/ sympy/liealgebras/ sympy/benchmarks/
    sympy/polys/benchmarks/ sympy/solvers/ sympy/integrals/ sympy/matrices/expressions/
    sympy/parsing/ sympy/codegen/ sympy/combinatorics/ sympy/tensor/ sympy/logic/algorithms/ sympy/testing/
    huggingface_hub/cli/ huggingface_hub/inference/ pydantic/v1/ fsspec/implementations/
    networkx/ numpy/f2py/ numpy/distutils/ pygments/ rich/ typer/ shellingham/ markdown_it/ mdurl/
    """.split()  # noqa: SIM905 - one a line would be a page
)


@dataclass(frozen=True, slots=True)
class ImagePython:
    """The image's interpreter, run on this machine out of an unpacked base layer.

    Attributes:
        root: the unpacked base, for this machine: byte code is the same on all of them.
        version: e.g. ``3.11``.
        architecture: of this machine and of that base.
    """

    root: Path
    version: str
    architecture: Architecture

    def argv(self, *arguments: str) -> list[str]:
        """A command line that runs it through the base's own dynamic loader: no chroot, no root."""
        libraries = self.root / "usr/lib" / self.architecture.triplet
        program = str(self.root / f"usr/bin/python{self.version}")
        loader = str(libraries / self.architecture.loader)
        return [loader, "--library-path", str(libraries), program, *arguments]

    @property
    def environment(self) -> dict[str, str]:
        """Variables for it; hash order is fixed because it reaches the byte code of sets."""
        return {"PYTHONHOME": str(self.root / "usr"), "PYTHONHASHSEED": "0", "PATH": "/usr/bin:/bin"}


def compile_packages(python: ImagePython, packages: Path, installed: str) -> None:
    """Write ``__pycache__`` below ``packages``.

    Args:
        python: the image's interpreter.
        packages: the unpacked packages.
        installed: their directory in the image, which byte code names in tracebacks.

    Raises:
        TunebuildError: the interpreter does not run on this machine.
    """
    sources = _sources(packages)
    workers = min(os.cpu_count() or 1, 8)
    # compileall compiles a list of files one by one, whatever -j says: so there are several lists.
    running = [
        _start(python, packages, installed, number, sources[number::workers]) for number in range(workers)
    ]
    for process in running:
        _, errors = process.communicate()
        # Exit status 1 without a word: some file is not valid for this Python (templates, Python 2).
        if process.returncode not in (0, 1) or errors.strip():
            reason = (errors.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
            message = f"the image's Python cannot run here: {reason}"
            raise fail("bytecode", message, path="image.platform")


def _start(
    python: ImagePython, packages: Path, installed: str, number: int, sources: list[Path]
) -> subprocess.Popen[str]:
    listing = packages.with_name(f"{packages.name}.sources-{number}")
    listing.write_text("".join(f"{path}\n" for path in sources), "utf-8")
    # Training may be running: it is what a person waits for.
    argv = ["nice", "-n", "10"] if shutil.which("nice") else []
    argv += python.argv(
        "-B", "-m", "compileall", "-q", "-f", "--invalidation-mode", "unchecked-hash",
        "-s", str(packages), "-p", f"/{installed}", "-i", str(listing),
    )  # fmt: skip
    return subprocess.Popen(
        argv, env=python.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def _sources(packages: Path) -> list[Path]:
    found = []
    for path in sorted(packages.rglob("*.py")):
        name = path.relative_to(packages).as_posix()
        parts = name.split("/")
        if name.startswith(_NOT_IMPORTED):
            continue
        if parts[:2] == ["transformers", "models"] and len(parts) > 3 and parts[2] not in _MODELS:
            continue
        found.append(path)
    return found
