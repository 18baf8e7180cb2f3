"""The Debian base: versions and archives as dpkg reads them, mirrors as far as they are signed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunebuild.errors import TunebuildError
from tunebuild.image.debian.deb import data_members
from tunebuild.image.debian.download import Downloads
from tunebuild.image.debian.index import PackageIndex, Release, read_release
from tunebuild.image.debian.layer import base_entries
from tunebuild.image.debian.resolve import AptLock, LockedPackage, choose_suite, closure, resolve_apt
from tunebuild.image.debian.settings import AptSettings, parse_settings, read_settings
from tunebuild.image.debian.signature import verified
from tunebuild.image.debian.sources import Repository, read_sources
from tunebuild.image.debian.version import DebianVersion
from tunebuild.image.oci.layer import FilesLayer, Symlink, layer_of_files
from tunebuild.store import Silent, digest_file

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb to compare with")

_UPSTREAM = st.text("0123456789ab.+~", min_size=0, max_size=5).map(lambda tail: "1" + tail)
_REVISION = st.one_of(st.just(""), st.text("01ab.+~", min_size=1, max_size=4).map(lambda r: f"-{r}"))
_VERSIONS = st.builds("{}{}{}".format, st.sampled_from(["", "0:", "1:"]), _UPSTREAM, _REVISION)


def dpkg_says(left: str, relation: str, right: str) -> bool:
    return subprocess.run(["dpkg", "--compare-versions", left, relation, right], check=False).returncode == 0


@needs_dpkg
@settings(max_examples=150, deadline=None)
@given(_VERSIONS, _VERSIONS | st.sampled_from(["", "0", "~", "-0", "-0~", "+b1"]))
def test_versions_order_as_dpkg_orders_them(left, right):
    right = right if right[:1].isdigit() and right != "0" else left + right
    assert (DebianVersion(left) < DebianVersion(right)) == dpkg_says(left, "lt", right)
    assert (DebianVersion(left) == DebianVersion(right)) == dpkg_says(left, "eq", right)


@pytest.mark.parametrize(
    ("lower", "higher"),
    [("1.0~rc1", "1.0"), ("1.0-0~", "1.0-0"), ("9", "10"), ("1.0", "1:0"), ("3.0.2-1", "3.0.2-1+deb12u1")],
)
def test_known_orders(lower, higher):
    assert DebianVersion(lower) < DebianVersion(higher)
    assert not DebianVersion(higher) < DebianVersion(lower)


def test_a_revision_of_zero_is_none():
    assert DebianVersion("1-0") == DebianVersion("1") == DebianVersion("0:1")
    assert len({DebianVersion("1-0"), DebianVersion("1")}) == 1


def make_deb(directory: Path, compression: str) -> Path:
    tree = directory / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: demo\nVersion: 1\nArchitecture: all\n"
        "Maintainer: Demo <demo@example.com>\nDescription: demo\n"
    )
    (tree / "lib/demo").mkdir(parents=True)
    (tree / "usr/share/doc/demo").mkdir(parents=True)
    (tree / "usr/bin").mkdir()
    (tree / "lib/demo/data").write_bytes(bytes(range(256)) * 40)
    (tree / "lib/demo/up").symlink_to("../../usr/share/doc")
    (tree / "lib/demo/same").hardlink_to(tree / "lib/demo/data")
    (tree / "usr/share/doc/demo/copyright").write_text("license\n")
    (tree / "usr/share/doc/demo/changelog").write_text("history\n")
    (tree / "usr/bin/tool").write_text("#!\n")
    (tree / "usr/bin/tool").chmod(0o4755)
    deb = directory / "demo.deb"
    argv = ["dpkg-deb", f"-Z{compression}", "--root-owner-group", "--build", str(tree), str(deb)]
    subprocess.run(argv, check=True, capture_output=True)
    return deb


@needs_dpkg
@pytest.mark.parametrize("compression", ["xz", "none", "zstd"])
def test_packages_unpack_as_dpkg_unpacks_them(tmp_path, compression):
    try:
        deb = make_deb(tmp_path, compression)
    except subprocess.CalledProcessError:
        pytest.skip(f"this dpkg-deb cannot write {compression}")
    subprocess.run(["dpkg-deb", "-x", str(deb), str(tmp_path / "theirs")], check=True)
    ours = {m.name.removeprefix("./"): c for m, c in data_members(deb.read_bytes(), "demo") if m.isreg()}
    assert {"lib/demo/data", "usr/bin/tool", "usr/share/doc/demo/copyright"} <= set(ours)
    for name, content in ours.items():
        assert (tmp_path / "theirs" / name).read_bytes() == content


def test_files_that_are_no_packages_are_refused():
    with pytest.raises(TunebuildError, match="not a Debian package"):
        list(data_members(b"<html>", "demo"))


def locked(deb: Path) -> AptLock:
    sha256 = digest_file(deb).removeprefix("sha256:")
    package = LockedPackage(
        "demo", "1", sha256, deb.stat().st_size, deb.as_uri(), "Package: demo\nVersion: 1\n"
    )
    return AptLock("bookworm", "3.11", (package,))


@needs_dpkg
def test_the_base_is_the_merged_tree_without_privileges(tmp_path):
    lock = locked(make_deb(tmp_path, "xz"))
    entries = {e.name: e for e in base_entries(lock, Downloads(tmp_path / "cache"), Silent())}
    assert entries["usr/lib/demo/data"].content == entries["usr/lib/demo/same"].content
    assert entries["usr/lib/demo/up"].content == Symlink("../../share/doc")
    assert entries["lib"].content == Symlink("usr/lib")
    assert entries["usr/bin/tool"].mode == 0o755  # no setuid
    assert "usr/share/doc/demo/copyright" in entries
    assert "usr/share/doc/demo/changelog" not in entries
    assert entries["tmp"].mode == 0o1777
    assert b"nonroot:x:65532:65532" in entries["etc/passwd"].content
    status = entries["var/lib/dpkg/status.d/demo"].content
    assert status == b"Package: demo\nStatus: install ok installed\nVersion: 1\n"


@needs_dpkg
def test_a_lock_gives_the_same_bytes_anywhere(tmp_path):
    lock = locked(make_deb(tmp_path, "xz"))
    before = os.umask(0o077)
    try:
        found = {
            layer_of_files(
                FilesLayer("base", "", tuple(base_entries(lock, Downloads(tmp_path / name), Silent())))
            ).digest
            for name in ("one", "two")
        }
    finally:
        os.umask(before)
    assert len(found) == 1


@needs_dpkg
def test_another_file_than_the_locked_one_is_refused(tmp_path):
    deb = make_deb(tmp_path, "xz")
    lock = locked(deb)
    deb.write_bytes(deb.read_bytes()[:-1] + b"?")
    with pytest.raises(TunebuildError, match="not the file"):
        base_entries(lock, Downloads(tmp_path / "cache"), Silent())
    assert not (tmp_path / "cache").exists()


def test_a_damaged_cached_file_is_fetched_again(tmp_path):
    source = tmp_path / "file"
    source.write_bytes(b"right")
    downloads = Downloads(tmp_path / "cache")
    sha256 = digest_file(source).removeprefix("sha256:")
    path = downloads.file(source.as_uri(), sha256, ".deb")
    path.write_bytes(b"wrong")
    assert downloads.file(source.as_uri(), sha256, ".deb").read_bytes() == b"right"
    source.unlink()
    assert downloads.file(source.as_uri(), sha256, ".deb").read_bytes() == b"right"  # asks no mirror
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [path.name]


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_a_mirror_out_of_reach_is_one_clear_message(tmp_path):
    uri = f"http://127.0.0.1:{closed_port()}/debian"
    (tmp_path / "sources.list").write_text(f"deb {uri} bookworm main\n")
    with pytest.raises(TunebuildError) as raised:
        resolve_apt(read_sources(tmp_path), Downloads(tmp_path / "cache"))
    (diagnostic,) = raised.value.diagnostics
    assert diagnostic.code == "mirror"
    assert f"{uri}/dists/bookworm/InRelease" in diagnostic.message
    assert "apt-get update" in diagnostic.hint
    assert not (tmp_path / "cache").exists()


def test_both_kinds_of_source_files_are_read(tmp_path):
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(
        "# deb http://commented.example bookworm main\n"
        "deb [arch=amd64 signed-by=/k/a.gpg] http://one.example/debian/ bookworm main contrib # why\n"
        "deb-src http://one.example/debian bookworm main\n"
    )
    (tmp_path / "sources.list.d/a.sources").write_text(
        "Types: deb\n# a comment inside\nURIs: http://two.example\nSuites: trixie\n trixie-updates\n"
        "Components: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n AAAA\n"
        " -----END PGP PUBLIC KEY BLOCK-----\n\n"
        "Types: deb\nURIs: http://off.example\nSuites: trixie\nComponents: main\nEnabled: no\n"
    )
    (tmp_path / "sources.list.d/b.list.disabled").write_text("deb http://off.example bookworm main\n")
    one, two, updates = read_sources(tmp_path)
    assert one == Repository("http://one.example/debian", "bookworm", ("main", "contrib"), ("/k/a.gpg",))
    assert (two.uri, two.suite, updates.suite) == ("http://two.example", "trixie", "trixie-updates")
    assert two.signed_by[0].startswith("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n")


def test_no_source_is_an_error(tmp_path):
    with pytest.raises(TunebuildError, match="no Debian mirror"):
        read_sources(tmp_path)


def test_apt_settings_are_followed():
    dump = 'Acquire::http::Proxy "http://127.0.0.1:3142";\nAcquire::https::Proxy "DIRECT";\n'
    assert parse_settings(dump) == AptSettings((("http", "http://127.0.0.1:3142"),), True)
    assert parse_settings('Acquire::Check-Valid-Until "false";').check_valid_until is False


def stanza(name: str, version: str, depends: str = "") -> str:
    return (
        f"Package: {name}\nVersion: {version}\nDepends: {depends}\nFilename: pool/{name}_{version}.deb\n"
        f"Size: 1\nSHA256: {'0' * 64}"
    )


def test_security_wins_by_version_not_by_order():
    index = PackageIndex()
    index.add(stanza("ssl", "3.0.9-1+deb12u10"), "http://security.example")
    index.add(stanza("ssl", "3.0.9-1+deb12u9"), "http://main.example")
    newest = index.newest("ssl")
    assert newest is not None
    assert newest.url == "http://security.example/pool/ssl_3.0.9-1+deb12u10.deb"


def test_closure_takes_first_alternatives_and_leaves_out_what_installs():
    index = PackageIndex()
    index.add(
        "\n\n".join(
            [
                stanza("app", "1", "libc (>= 2), missing | other:any, debconf | cdebconf"),
                stanza("libc", "2", "app"),
                stanza("other", "1"),
                stanza("debconf", "1"),
            ]
        ),
        "http://main.example",
    )
    assert {p.name for p in closure(["app"], index)} == {"app", "libc", "other"}
    with pytest.raises(TunebuildError, match="no package nothing"):
        closure(["nothing"], index)


def test_only_debian_itself_makes_the_base():
    def release(suite: str, origin: str = "Debian", automatic: bool = True) -> Release:
        return Release(Repository("http://x.example", suite, ("main",)), origin, suite, automatic, {})

    others = [release("bookworm", "Someone"), release("bookworm-backports", automatic=False)]
    wanted = [release("bookworm"), release("bookworm-security")]
    assert choose_suite([*others, *wanted]) == ("bookworm", wanted)
    with pytest.raises(TunebuildError, match=r"none of Debian.s suites"):
        choose_suite(others)


@pytest.fixture(scope="module")
def mirror() -> list[Repository]:
    """This machine's Debian mirrors. On CI they must answer."""
    try:
        repositories = read_sources()
        Downloads(Path("/nonexistent"), read_settings()).fetch(
            f"{repositories[0].uri}/dists/{repositories[0].suite}/InRelease"
        )
    except TunebuildError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    return repositories


class Tampered(Downloads):
    """A mirror on which somebody changed one letter of the index."""

    def fetch(self, url: str) -> bytes:
        return super().fetch(url).replace(b"Origin: Debian", b"Origin: Debjan")


class Moved(Downloads):
    """A mirror that serves a suite under another one's name."""

    def fetch(self, url: str) -> bytes:
        return super().fetch(url.replace("/bookworm-updates/", "/bookworm/"))


def test_a_changed_index_is_refused(mirror, tmp_path):
    with pytest.raises(TunebuildError, match="is not signed by a key"):
        read_release(mirror[0], Tampered(tmp_path, read_settings()))


def test_another_suites_index_is_refused(mirror, tmp_path):
    updates = next((r for r in mirror if r.suite == "bookworm-updates"), None)
    if updates is None:
        pytest.skip("apt is not set up with bookworm-updates")
    with pytest.raises(TunebuildError, match="is the index of"):
        read_release(updates, Moved(tmp_path, read_settings()))


def test_text_around_the_signature_is_not_believed(mirror, tmp_path):
    repository = mirror[0]
    url = f"{repository.uri}/dists/{repository.suite}/InRelease"
    signed = Downloads(tmp_path, read_settings()).fetch(url)
    try:
        text = verified(b"Origin: Evil\n\n" + signed, repository.signed_by, url)
    except TunebuildError:
        return
    assert "Evil" not in text


def test_a_missing_keyring_is_named(tmp_path):
    with pytest.raises(TunebuildError, match=r"no .*nowhere\.gpg|no gpgv"):
        verified(b"", [str(tmp_path / "nowhere.gpg")], "InRelease")


@pytest.mark.slow
def test_the_real_base_runs_python(mirror, tmp_path):
    downloads = Downloads(tmp_path / "cache", read_settings())
    lock = resolve_apt(mirror, downloads)
    entries = base_entries(lock, downloads, Silent())
    layer = layer_of_files(FilesLayer("base", "", tuple(entries)))
    assert layer.size < 45e6
    assert len(lock.packages) < 25
    names = {e.name for e in entries}
    folders = {str(parent) for name in names for parent in Path(name).parents}
    for entry in entries:
        if isinstance(entry.content, Symlink):
            target = os.path.normpath(f"/{Path(entry.name).parent}/{entry.content.target}").lstrip("/")
            if entry.content.target.startswith("/"):
                target = entry.content.target.lstrip("/")
            assert target in names | folders, f"{entry.name} -> {entry.content.target} leads nowhere"
    for entry in entries:
        if isinstance(entry.content, bytes):
            path = tmp_path / "root" / entry.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(entry.content)
            path.chmod(entry.mode)
    libraries = tmp_path / "root/usr/lib/x86_64-linux-gnu"
    program = "import ssl, sqlite3, ctypes, uuid, lzma, hashlib; print('ran')"
    done = subprocess.run(
        [
            libraries / "ld-linux-x86-64.so.2", "--library-path", libraries,
            tmp_path / f"root/usr/bin/python{lock.python}", "-c", program,
        ],
        env={"PYTHONHOME": str(tmp_path / "root/usr")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    # Links were not laid out, so libraries that are reached through one may be missing; Python itself is not.
    assert done.returncode == 0 or "cannot open shared object" in done.stderr, done.stderr


def test_what_is_pinned_does_not_move():
    index = PackageIndex()
    index.add("\n\n".join(stanza("libc", version) for version in ("1.0", "1.1")), "http://main.example")
    old, new = (package.sha256 for package in index.all("libc"))
    new = new if new != old else "b" * 64
    assert [p.version for p in closure(["libc"], index)] == ["1.1"]
    assert [p.version for p in closure(["libc"], index, {"libc": ("1.0", old)})] == ["1.0"]
    with pytest.raises(TunebuildError, match=r"the lock wants libc 0\.9, the mirror has 1\.0, 1\.1"):
        closure(["libc"], index, {"libc": ("0.9", old)})
    with pytest.raises(TunebuildError, match="another file under that version"):
        closure(["libc"], index, {"libc": ("1.0", new)})
