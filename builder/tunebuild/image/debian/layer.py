"""Unpacks the locked packages into one layer, and does by hand what their scripts would do."""

from __future__ import annotations

import posixpath
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from tunebuild.image.architecture import ARCHITECTURES
from tunebuild.image.debian.deb import data_members
from tunebuild.image.debian.download import Downloads
from tunebuild.image.debian.resolve import AptLock, LockedPackage
from tunebuild.image.oci.layer import Entry, Symlink
from tunebuild.store import Progress

_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_CERTIFICATES = "usr/share/ca-certificates/mozilla/"
_NOBODY = 65532

# For people and for other languages; half of the packages' size.
_UNUSED = (
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
    *(f"usr/lib/{one.triplet}/{name}/" for one in ARCHITECTURES for name in ("gconv", "audit")),
    "var/",
    "etc/cron",
)
_DOCS = "usr/share/doc/"


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


def download(lock: AptLock, downloads: Downloads, progress: Progress) -> list[Path]:
    """Paths of the locked packages' files, fetched where they are not in the cache.

    Raises:
        TunebuildError: a mirror is out of reach, or a file is not the locked one.
    """

    def one(package: LockedPackage) -> Path:
        return downloads.file(package.url, package.sha256, ".deb")

    paths = []
    with ThreadPoolExecutor(4) as pool:
        for package, path in zip(lock.packages, pool.map(one, lock.packages), strict=True):
            paths.append(path)
            progress.step(len(paths), len(lock.packages), package.name)
    return paths


def base_entries(lock: AptLock, downloads: Downloads, progress: Progress) -> list[Entry]:
    """Everything in the base layer, in order of path.

    Raises:
        TunebuildError: as :func:`download`.
    """
    tree = _Tree()
    paths = download(lock, downloads, progress)
    with ThreadPoolExecutor(2) as pool:  # xz leaves the interpreter to others while it works
        unpacked = list(pool.map(_package_entries, lock.packages, paths))
    for package, entries in zip(lock.packages, unpacked, strict=True):
        for entry in entries:
            tree.add(entry)
        # Where scanners look for packages in images that have no dpkg.
        tree.file(f"var/lib/dpkg/status.d/{package.name}", _status(package))
    _configure(tree, lock)
    return sorted(tree.entries.values(), key=lambda e: e.name.encode())


def _package_entries(package: LockedPackage, path: Path) -> list[Entry]:
    shown = f"{package.name}_{package.version}.deb"
    files: dict[str, Entry] = {}
    found: list[Entry] = []
    for member, content in data_members(path.read_bytes(), shown):
        name = _merged(posixpath.normpath(member.name))
        if member.isreg():
            files[name] = Entry(name, content, _mode(member))
            found.append(files[name])
        elif member.issym():
            found.append(Entry(name, Symlink(_merged_target(member))))
        elif member.islnk():
            found.append(replace(files[_merged(posixpath.normpath(member.linkname))], name=name))
        # Directories are made as needed: an empty one of a package holds nothing that we run.
    return [entry for entry in found if not _is_unused(entry)]


def _configure(tree: _Tree, lock: AptLock) -> None:
    """What the packages' maintainer scripts would have done."""
    for name in ("bin", "sbin", "lib", "lib64"):
        tree.link(name, f"usr/{name}")
    tree.link("usr/bin/python3", f"python{lock.python}")
    certificates = [e for n, e in sorted(tree.entries.items()) if n.startswith(_CERTIFICATES)]
    bundle = b"".join(e.content.rstrip() + b"\n" for e in certificates if isinstance(e.content, bytes))
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
    """A link's target, with its own directory and the target moved below ``/usr`` alike."""
    target = member.linkname
    if target.startswith("/"):
        return "/" + _merged(target.lstrip("/"))
    old = posixpath.dirname(posixpath.normpath(member.name))
    absolute = posixpath.normpath(posixpath.join(old, target))
    if _merged(old) == old and _merged(absolute) == absolute:
        return target
    return posixpath.relpath(f"/{_merged(absolute)}", f"/{_merged(old)}")


def _mode(member: tarfile.TarInfo) -> int:
    # No setuid or setgid program: the container runs as one user without privileges.
    return 0o755 if member.mode & 0o100 else 0o644


def _is_unused(entry: Entry) -> bool:
    if entry.name.startswith(_DOCS):
        # Licenses stay, and so do links to a directory that holds another package's.
        linked = isinstance(entry.content, Symlink) and entry.name.count("/") == _DOCS.count("/")
        return not (entry.name.endswith("/copyright") or linked)
    return entry.name.startswith(_UNUSED)


def _status(package: LockedPackage) -> str:
    head, _, rest = package.stanza.partition("\n")
    return f"{head}\nStatus: install ok installed\n{rest}"
