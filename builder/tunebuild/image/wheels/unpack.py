"""Unpacks wheels into a directory as an installer would, without what a running server never reads."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from tunebuild.errors import fail
from tunebuild.store import Progress

# Headers, tests and build tools. ``torch/bin/torch_shm_manager`` stays: importing torch looks for it.
# Tests inside torch and numpy.testing are imported by the libraries themselves.
_UNUSED = re.compile(
    r"""
    torch/(test|include|share)/
    | torch/bin/(?!torch_shm_manager)
    | torch/lib/(libtorchbind_test|libjitbackend_test|libbackend_with_compiler)
    | (?!torch/|numpy/testing/).*/tests?/
    | setuptools/ | pkg_resources/ | _distutils_hack/ | distutils-precedence\.pth
    | .*\.(a|h|hpp|cuh|pyi|pxd|pyx|c|cpp|cmake)$
    | .*\.dist-info/(RECORD|INSTALLER|REQUESTED|direct_url\.json|sboms/)
    """,
    re.VERBOSE,
)


def unpack_wheels(wheels: Iterable[Path], target: Path, progress: Progress) -> None:
    """Unpack wheels one over the other.

    Raises:
        TunebuildError: a wheel is damaged or names a file outside the target.
    """
    target.mkdir(parents=True, exist_ok=True)
    paths = list(wheels)
    total = sum(path.stat().st_size for path in paths)
    done = 0
    for path in paths:
        try:
            with zipfile.ZipFile(path) as archive:
                for info in archive.infolist():
                    _unpack_one(archive, info, target)
        except zipfile.BadZipFile as error:
            raise fail("bad-wheel", f"{path.name} is damaged: {error}", "remove it and build again") from None
        done += path.stat().st_size
        progress.step(done, total, path.name.split("-")[0])


def installed_name(name: str) -> str | None:
    """Where a wheel's member goes in ``site-packages``; ``None`` if it is left out.

    Raises:
        TunebuildError: the member would leave ``site-packages``.
    """
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith("/"):
        raise fail("bad-wheel", f"a wheel holds a file named {name!r}", "do not use that package")
    if parts[0].endswith(".data"):
        if len(parts) < 3 or parts[1] not in ("purelib", "platlib"):
            return None  # scripts, headers and data have no place in the image
        parts = parts[2:]
    installed = "/".join(parts)
    return None if _UNUSED.match(installed) else installed


def _unpack_one(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    if info.is_dir():
        return
    name = installed_name(info.filename)
    if name is None:
        return
    path = target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(info) as source, path.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
    path.chmod(0o755 if (info.external_attr >> 16) & 0o100 else 0o644)
