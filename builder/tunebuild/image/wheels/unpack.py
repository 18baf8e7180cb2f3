"""Reads wheels as the tree that an installer would make of them, without what a server never reads."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tunebuild.errors import fail

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


@dataclass(frozen=True, slots=True)
class Member:
    """A file of a wheel: where it goes in ``site-packages``, and how to read it."""

    name: str
    archive: zipfile.ZipFile
    info: zipfile.ZipInfo

    @property
    def mode(self) -> int:
        """0755 for programs, else 0644."""
        return 0o755 if (self.info.external_attr >> 16) & 0o100 else 0o644


@contextmanager
def open_wheels(wheels: Iterable[Path]) -> Iterator[list[Member]]:
    """The files of several wheels as one tree, in order of name; later wheels win.

    Raises:
        TunebuildError: a wheel is damaged or names a file outside ``site-packages``.
    """
    members: dict[str, Member] = {}
    with ExitStack() as opened:
        for path in wheels:
            try:
                archive = opened.enter_context(zipfile.ZipFile(path))
            except zipfile.BadZipFile as error:
                hint = "remove it and build again"
                raise fail("bad-wheel", f"{path.name} is damaged: {error}", hint) from None
            for info in archive.infolist():
                name = None if info.is_dir() else installed_name(info.filename)
                if name is not None:
                    members[name] = Member(name, archive, info)
        yield sorted(members.values(), key=lambda m: m.name.encode())


def extract_sources(members: Iterable[Member], target: Path) -> None:
    """Write the Python sources to disk, for the compiler; everything else stays in the wheels."""
    for member in members:
        if member.name.endswith(".py"):
            path = target / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(member.archive.read(member.info))


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
