"""Chooses the packages of the base layer: what Python needs at run time and nothing that installs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from tunebuild.errors import fail
from tunebuild.image.debian.download import Downloads
from tunebuild.image.debian.index import Package, PackageIndex, Release, read_index, read_release
from tunebuild.image.debian.sources import Repository

#: Python of each suite; other suites are not known to work.
PYTHON_OF_SUITE = {"bookworm": "3.11", "trixie": "3.13"}

# Names that stand for a suite and move from one to the next; the signed index tells which it is.
_MOVING = ("stable", "oldstable")

# Wanted by packages' installation scripts, or by people at a shell; nothing in the image calls them.
_DROPPED = frozenset(
    """
    debconf debconf-2.0 dpkg openssl install-info libc-bin media-types mime-support netbase perl-base tar
    base-passwd awk mawk tzdata tzdata-legacy python3-minimal readline-common
    libreadline8 libreadline8t64 libtinfo6 libncursesw6 libnsl2 libtirpc3 libtirpc3t64 libtirpc-common
    libkrb5-3 libgssapi-krb5-2 libk5crypto3 libkrb5support0 libcom-err2 libkeyutils1 krb5-locales
    libdb5.3 libdb5.3t64 openssl-provider-legacy
    """.split()  # noqa: SIM905 - one name a line would be a page
)


@dataclass(frozen=True, slots=True)
class LockedPackage:
    """A package pinned by content."""

    name: str
    version: str
    sha256: str
    size: int
    url: str
    stanza: str


@dataclass(frozen=True, slots=True)
class AptLock:
    """The packages of a base layer.

    Attributes:
        suite: the Debian suite, e.g. ``bookworm``.
        python: version of its Python, e.g. ``3.11``.
        packages: in order of name.
    """

    suite: str
    python: str
    packages: tuple[LockedPackage, ...]

    def to_json(self) -> dict[str, Any]:
        """For a lock file."""
        return asdict(self)


def resolve_apt(
    repositories: Sequence[Repository],
    downloads: Downloads,
    architecture: str = "amd64",
    pins: Mapping[str, tuple[str, str]] | None = None,
    compiler: bool = False,
) -> AptLock:
    """Resolve the base against the mirrors that this machine uses.

    Args:
        repositories: the mirrors.
        downloads: fetches from them.
        architecture: Debian's name for it.
        pins: version and SHA-256 of packages that may not move, by name.
        compiler: whether a C compiler is among them, for kernels that are made while the model loads.

    Raises:
        TunebuildError: a mirror cannot be reached or believed, its suite is not known, or it has no longer
            what is pinned.
    """
    candidates = [r for r in repositories if r.suite.split("-")[0] in (*PYTHON_OF_SUITE, *_MOVING)]
    releases = [read_release(repository, downloads) for repository in candidates]
    suite, ours = choose_suite(releases)
    return lock_packages(suite, read_index(ours, downloads, architecture), pins or {}, compiler)


def choose_suite(releases: Sequence[Release]) -> tuple[str, list[Release]]:
    """The first suite whose Python is known, with its updates and security fixes.

    Raises:
        TunebuildError: there is none.
    """
    # Other makers name their suites after Debian's; backports are only for those who ask.
    debian = [r for r in releases if r.origin == "Debian" and r.automatic]
    suite = next((r.codename for r in debian if r.codename in PYTHON_OF_SUITE), None)
    if suite is None:
        raise fail(
            "suite",
            f"apt is set up with none of Debian's suites {', '.join(PYTHON_OF_SUITE)}",
            "build on such a Debian, or choose another image.base",
            path="image.base",
        )
    return suite, [r for r in debian if r.codename == suite or r.codename.startswith(f"{suite}-")]


def lock_packages(
    suite: str,
    packages: PackageIndex,
    pins: Mapping[str, tuple[str, str]] = MappingProxyType({}),
    compiler: bool = False,
) -> AptLock:
    """Choose the base's packages out of a suite's lists. Pure: equal lists and pins, equal lock.

    Args:
        suite: the suite.
        packages: its lists.
        pins: version and SHA-256 of packages that may not move, by name.
        compiler: whether a C compiler is among them.

    Raises:
        TunebuildError: ``no-package``, or ``mirror-moved`` if a pinned one is gone.
    """
    python = PYTHON_OF_SUITE[suite]
    wanted: tuple[str, ...] = (
        "base-files",
        "ca-certificates",
        f"python{python}",
        f"libpython{python}-stdlib",
        "libstdc++6",
    )
    if compiler:
        wanted += ("gcc", "libc6-dev", f"libpython{python}-dev")
    chosen = sorted(closure(wanted, packages, pins), key=lambda p: p.name)
    return AptLock(
        suite,
        python,
        tuple(LockedPackage(p.name, p.version, p.sha256, p.size, p.url, p.stanza) for p in chosen),
    )


def closure(
    wanted: Iterable[str],
    packages: PackageIndex,
    pins: Mapping[str, tuple[str, str]] = MappingProxyType({}),
) -> list[Package]:
    """``wanted`` and all they depend on, first alternatives first, without what is dropped on purpose.

    Raises:
        TunebuildError: a package that is needed is in no list, or not as it is pinned.
    """
    chosen: dict[str, Package] = {}
    queue = list(wanted)
    while queue:
        name = queue.pop()
        if name in chosen:
            continue
        package = _pinned(name, packages, *pins[name]) if name in pins else packages.newest(name)
        if package is None:
            message = f"the mirror has no package {name}"
            raise fail("no-package", message, "look at /etc/apt", path="image.base")
        chosen[name] = package
        for group in package.depends:
            if _DROPPED.isdisjoint(group) and not any(option in chosen for option in group):
                queue.append(next((option for option in group if option in packages), group[0]))
    return list(chosen.values())


def _pinned(name: str, packages: PackageIndex, version: str, sha256: str) -> Package:
    offered = packages.all(name)
    if found := next((p for p in offered if (p.version, p.sha256) == (version, sha256)), None):
        return found
    has = ", ".join(p.version for p in offered) or "none"
    same = any(p.version == version for p in offered)
    raise fail(
        "mirror-moved",
        f"the lock wants {name} {version}, the mirror has "
        + ("another file under that version" if same else has),
        f"let it move with 'tunebuild lock --update {name}', or use a mirror that keeps old versions",
        path="image.base",
    )
