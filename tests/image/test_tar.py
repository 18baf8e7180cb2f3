"""Deterministic tar: what is read back is what was written, whatever the machine's settings."""

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunebuild.errors import TunebuildError
from tunebuild.image.oci.tar import END, TarWriter, aligned_header, entry_header, padding, write_tree
from tunebuild.store.digest import digest_bytes

_part = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=90
).filter(lambda s: s not in (".", ".."))
_name = st.lists(_part, min_size=1, max_size=5).map("/".join)


@given(name=_name, data=st.binary(max_size=2000), mode=st.sampled_from([0o644, 0o755, 0o1777]))
def test_tarfile_reads_back_what_a_header_says(name: str, data: bytes, mode: int) -> None:
    tar = entry_header(name, size=len(data), mode=mode) + data + padding(len(data)) + END
    assert len(tar) % 512 == 0
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        (member,) = archive.getmembers()
        content = archive.extractfile(member)
        assert content is not None
        assert content.read() == data
    assert (member.name, member.size, member.mode) == (name, len(data), mode)
    assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")


@given(name=_name, position=st.integers(0, 40).map(lambda n: n * 512))
def test_aligned_data_starts_on_a_block_and_reads_the_same(name: str, position: int) -> None:
    before = b"".join(entry_header(f"d{n}", kind="dir") for n in range(position // 512))
    header = aligned_header(name, size=3, position=position)
    assert (position + len(header)) % 4096 == 0
    with tarfile.open(fileobj=io.BytesIO(before + header + b"abc" + padding(3) + END)) as archive:
        member = archive.getmembers()[-1]
        assert (member.name, member.size, member.mode) == (name, 3, 0o644)
        assert archive.extractfile(member).read() == b"abc"  # type: ignore[union-attr]


@given(name=_name, target=_name)
def test_links_keep_their_target(name: str, target: str) -> None:
    for kind, check in (("symlink", tarfile.TarInfo.issym), ("hardlink", tarfile.TarInfo.islnk)):
        with tarfile.open(fileobj=io.BytesIO(entry_header(name, kind=kind, link=target) + END)) as archive:  # type: ignore[arg-type]
            (member,) = archive.getmembers()
        assert check(member)
        assert member.linkname.rstrip("/") == target.rstrip("/")


@pytest.mark.parametrize("name", ["", "/etc/passwd", "a/../b", "./a", "a//b", ".."])
def test_names_that_unpackers_disagree_on_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="clean relative path"):
        entry_header(name)


def test_the_header_bytes_are_pinned() -> None:
    # The image digest hangs on these bytes: a Python release that writes them differently must be noticed.
    headers = entry_header("opt/x", size=5, mode=0o755) + entry_header("d", kind="dir", mode=0o755)
    headers += entry_header("l" * 101, size=9 << 30) + entry_header("s", kind="symlink", link="t")
    assert digest_bytes(headers) == "sha256:3edab5b604576a1cba5b60a9435d0d0c1a3de2e88d4dbb377810145788ddee49"


def _tree(root: Path) -> None:
    (root / "b" / "empty").mkdir(parents=True)
    (root / "b-c").write_bytes(b"between b and b/")
    (root / "b" / "run").write_bytes(b"#!")
    (root / "b" / "run").chmod(0o700)
    (root / "a").write_bytes(b"x" * 1000)
    (root / "a").chmod(0o600)
    (root / "ü").write_text("ü")
    (root / "link").symlink_to("../nowhere")


def test_a_tree_is_sorted_and_normalized(tmp_path: Path) -> None:
    _tree(tmp_path)
    sink = io.BytesIO()
    result = write_tree(tmp_path, "opt/x", sink)
    assert (result.digest, result.size) == (digest_bytes(sink.getvalue()), len(sink.getvalue()))
    sink.seek(0)
    with tarfile.open(fileobj=sink) as archive:
        found = [(m.name, m.mode, m.linkname) for m in archive]
    assert found == [
        ("opt", 0o755, ""),
        ("opt/x", 0o755, ""),
        ("opt/x/a", 0o644, ""),
        ("opt/x/b", 0o755, ""),
        ("opt/x/b-c", 0o644, ""),
        ("opt/x/b/empty", 0o755, ""),
        ("opt/x/b/run", 0o755, ""),
        ("opt/x/link", 0o777, "../nowhere"),
        ("opt/x/ü", 0o644, ""),
    ]


def test_place_umask_times_and_creation_order_do_not_matter(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "elsewhere" / "second"
    _tree(first)
    before = os.umask(0o077)
    try:
        shutil.copytree(first, second, symlinks=True, copy_function=shutil.copy)
    finally:
        os.umask(before)
    os.utime(second / "a", (1, 1))
    (second / "b").chmod(0o700)
    assert write_tree(first, "", io.BytesIO()) == write_tree(second, "", io.BytesIO())


def test_gnu_tar_unpacks_it(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    _tree(source)
    target.mkdir()
    with (tmp_path / "t.tar").open("wb") as sink:
        write_tree(source, "", sink)
    subprocess.run(["tar", "-xf", tmp_path / "t.tar", "-C", target], check=True)
    assert (target / "b" / "run").read_bytes() == b"#!"
    assert (target / "link").readlink() == Path("../nowhere")


def test_a_pipe_in_the_tree_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TunebuildError, match="neither a file"):
        write_tree(tmp_path, "", io.BytesIO())


def test_parents_are_written_once() -> None:
    sink = io.BytesIO()
    writer = TarWriter(sink)
    writer.data("a/b/one", b"1")
    writer.directory("a/b")
    writer.data("a/b/two", b"2", mode=0o755)
    writer.finish()
    sink.seek(0)
    with tarfile.open(fileobj=sink) as archive:
        assert archive.getnames() == ["a", "a/b", "a/b/one", "a/b/two"]
