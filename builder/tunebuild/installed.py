"""Which libraries are installed, found out without importing them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from importlib.util import find_spec


def version_of(library: str) -> str:
    """A library's version; empty where it is not installed.

    A build is refused there, but a plan is not, and specs are compared where nothing can be trained.
    """
    try:
        return package_version(library)
    except PackageNotFoundError:
        return ""


def missing_of(*libraries: str) -> tuple[str, ...]:
    """Those of some libraries that cannot be imported here."""
    return tuple(name for name in libraries if find_spec(name) is None)
