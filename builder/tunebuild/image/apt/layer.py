"""Unpacks the locked packages into one layer, and does by hand what their scripts would do."""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tunebuild.errors import fail
from tunebuild.image.apt.deb import data_members
from tunebuild.image.apt.index import fetch
from tunebuild.image.apt.resolve import AptLock, LockedPackage
from tunebuild.image.layer import Entry, Symlink
from tunebuild.store import Progress
from tunebuild.store.digest import digest_bytes

_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_CERTIFICATES = "usr/share/ca-certificates/mozilla/"
_NOBODY = 65532

# For people and for other languages; half of the packages' size.
_UNUSED = (
    "usr/share/doc/",
    "usr/share/man/",
    "usr/share/info/",
    "usr/share/lintian/",
    "usr/share/bug/",
    "usr/share/locale/",
    "usr/share/applications/",
    "usr/share/pixmaps/",
    "usr/share/binfmts/",
    "usr/share/gcc/",
    "usr/share/gdb/",
    "usr/lib/x86_64-linux-gnu/gconv/",
    "usr/lib/x86_64-linux-gnu/audit/",
    "var/",
    "etc/cron",
)
_KEPT = ("usr/share/doc/{package}/copyright",)


@dataclass(slots=True)
class _Tree:
    """Paths of the layer while it grows."""

    entries: dict[str, Entry] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        self.entries[entry.name] = entry

    def file(self, name: str, text: str) -> None:
        self.add(Entry(name, text.encode()))

    def link(self, name: str, target: str) -> None:
        self.add(Entry(name, Symlink(target)))

    def directory(self, name: str, mode: int) -> None:
        self.add(Entry(name, None, mode))


def download(lock: AptLock, cache: Path, progress: Progress) -> list[Path]:
    """Paths of the locked packages' files, fetched where they are not in the cache.

    Raises:
        TunebuildError: a mirror is out of reach, or a file is not the locked one.
    """
    cache.mkdir(parents=True, exist_ok=True)

    def one(package: LockedPackage) -> Path:
        path = cache / f"{package.sha256}.deb"
        if not path.is_file() or path.stat().st_size != package.size:
            data = fetch(package.url)
            _check(package, data)
            temporary = path.with_suffix(".partial")
            temporary.write_bytes(data)
            temporary.replace(path)
        return path

    paths = []
    with ThreadPoolExecutor(4) as pool:
        for number, path in enumerate(pool.map(one, lock.packages), 1):
            paths.append(path)
            progress.step(number, len(lock.packages), lock.packages[number - 1].name)
    return paths


def base_entries(lock: AptLock, cache: Path, progress: Progress) -> list[Entry]:
    """Everything in the base layer, in order of path.

    Raises:
        TunebuildError: as :func:`download`.
    """
    tree = _Tree()
    for package, path in zip(lock.packages, download(lock, cache, progress), strict=True):
        data = path.read_bytes()
        _check(package, data)
        for entry in _package_entries(package, data):
            tree.add(entry)
        # Where scanners look for packages in images that have no dpkg.
        tree.file(f"var/lib/dpkg/status.d/{package.name}", _status(package))
    _configure(tree, lock)
    return sorted(tree.entries.values(), key=lambda e: e.name.encode())


def _package_entries(package: LockedPackage, deb: bytes) -> Iterator[Entry]:
    contents: dict[str, bytes] = {}
    for member, content in data_members(deb, f"{package.name}_{package.version}.deb"):
        name = _merged(posixpath.normpath(member.name))
        if name == "." or _is_unused(name, package.name):
            continue
        if member.isdir():
            continue  # parents are made as needed; an empty directory of a package holds nothing we run
        if member.issym():
            yield Entry(name, Symlink(_merged_target(member)))
        elif member.islnk():
            source = _merged(posixpath.normpath(member.linkname))
            yield Entry(name, contents[source], _mode(member))
        elif member.isreg():
            contents[name] = content
            yield Entry(name, content, _mode(member))


def _configure(tree: _Tree, lock: AptLock) -> None:
    """What the packages' maintainer scripts would have done."""
    for name in ("bin", "sbin", "lib", "lib64"):
        tree.link(name, f"usr/{name}")
    tree.link("usr/bin/python3", f"python{lock.python}")
    certificates = [e for n, e in sorted(tree.entries.items()) if n.startswith(_CERTIFICATES)]
    bundle = b"".join(e.content for e in certificates if isinstance(e.content, bytes))
    tree.add(Entry("etc/ssl/certs/ca-certificates.crt", bundle))
    tree.link("usr/lib/ssl/cert.pem", "/etc/ssl/certs/ca-certificates.crt")
    shell = "/usr/sbin/nologin"
    tree.file(
        "etc/passwd",
        f"root:x:0:0:root:/root:{shell}\nnobody:x:65534:65534:nobody:/nonexistent:{shell}\n"
        f"nonroot:x:{_NOBODY}:{_NOBODY}:nonroot:/home/nonroot:{shell}\n",
    )
    tree.file("etc/group", f"root:x:0:\nnogroup:x:65534:\nnonroot:x:{_NOBODY}:\n")
    tree.file("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
    for name, mode in (
        ("tmp", 0o1777), ("var/tmp", 0o1777), ("home/nonroot", 0o755), ("root", 0o700),
        ("proc", 0o555), ("sys", 0o555), ("dev", 0o755), ("run", 0o755),
    ):  # fmt: skip
        tree.directory(name, mode)


def _merged(name: str) -> str:
    """Debian's packages of before the merge put libraries in ``/lib``; today that is ``/usr/lib``."""
    return f"usr/{name}" if name.split("/", 1)[0] in _MERGED else name


def _merged_target(member: tarfile.TarInfo) -> str:
    """A link's target with its own directory and its target moved below ``/usr`` alike."""
    if not member.linkname.startswith("/"):
        return member.linkname
    return "/" + _merged(member.linkname.lstrip("/"))


def _mode(member: tarfile.TarInfo) -> int:
    # No setuid or setgid program: the container runs as one user without privileges.
    return 0o755 if member.mode & 0o100 else 0o644


def _is_unused(name: str, package: str) -> bool:
    if name in (kept.format(package=package) for kept in _KEPT):
        return False
    return name.startswith(_UNUSED)


def _status(package: LockedPackage) -> str:
    head, _, rest = package.stanza.partition("\n")
    return f"{head}\nStatus: install ok installed\n{rest}"


def _check(package: LockedPackage, data: bytes) -> None:
    if digest_bytes(data) != f"sha256:{package.sha256}":
        raise fail(
            "deb-changed",
            f"{package.name} {package.version} is not the file that was locked",
            "the download was damaged or the mirror replaced it; remove it from the cache and try again",
            path="image.base",
        )
