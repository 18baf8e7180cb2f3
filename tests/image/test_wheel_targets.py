"""An image's wheels follow its own device, machine and Python, whatever machine builds it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tunebuild.errors import TunebuildError
from tunebuild.image.wheels.lock import WheelLock, constraints_file, fetch_wheels
from tunebuild.image.wheels.resolve import Target


def publish(
    index: Path,
    name: str,
    version: str,
    *,
    needs: tuple[str, ...] = (),
    tags: str = "py3-none-any",
    cuda: str = "",
) -> None:
    """Put a wheel with nothing in it into a directory of wheels."""
    normal = name.replace("-", "_")
    meta = "".join(f"Requires-Dist: {need}\n" for need in needs)
    info = f"{normal}-{version}.dist-info"
    index.mkdir(exist_ok=True)
    with zipfile.ZipFile(index / f"{normal}-{version}-{tags}.whl", "w") as archive:
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{meta}"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\n")
        if name == "torch":
            archive.writestr(
                "torch/version.py", f"cuda: Optional[str] = {cuda!r}\n" if cuda else "cuda = None\n"
            )


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A directory of wheels, and a pip that knows of no other."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    return tmp_path / "index"


def fetch(
    index: Path, *requirements: str, target: Target, pinned: str = "", pins: dict | None = None
) -> tuple[WheelLock, dict[str, str]]:
    constraints = index.parent / "constraints.txt"
    constraints.write_text(pinned)
    wanted = ["--no-index", f"--find-links={index}", *requirements]
    lock = fetch_wheels(wanted, constraints, target, index.parent / "out", pins)
    return lock, {wheel.name: wheel.version for wheel in lock.wheels}


def both_torches(index: Path) -> None:
    """What a machine has that was set up for a CPU, and can reach a public index besides."""
    for machine in ("x86_64", "aarch64"):
        tags = f"cp311-cp311-manylinux_2_28_{machine}"
        publish(index, "torch", "2.13.0", tags=tags, needs=("nvidia-cublas",), cuda="13.0")
        publish(index, "torch", "2.13.0+cpu", tags=tags)
    publish(index, "nvidia-cublas", "13.1")


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_torch_follows_the_device(index, machine):
    both_torches(index)
    lock, found = fetch(
        index, "torch>=2.10", target=Target("3.11", machine, "cuda"), pinned="torch==2.13.0\n"
    )
    assert found == {"torch": "2.13.0", "nvidia-cublas": "13.1"}
    assert lock.cuda == "13.0"
    assert all(machine in wheel.filename or "any" in wheel.filename for wheel in lock.wheels)
    lock, found = fetch(index, "torch>=2.10", target=Target("3.11", machine, "cpu"), pinned="torch==2.13.0\n")
    assert found == {"torch": "2.13.0+cpu"}
    assert lock.cuda == ""


def test_cuda_from_an_index_of_cpu_builds_is_refused(index):
    publish(index, "torch", "2.13.0", tags="cp311-cp311-manylinux_2_28_x86_64")
    with pytest.raises(TunebuildError, match="is a CPU build") as caught:
        fetch(index, "torch", target=Target("3.11", "x86_64", "cuda"), pinned="torch==2.13.0\n")
    assert caught.value.diagnostics[0].path == "serving.device"


def test_cpu_without_a_cpu_build_takes_the_plain_wheel_and_says_so(index):
    tags = "cp311-cp311-manylinux_2_28_x86_64"
    publish(index, "torch", "2.13.0", tags=tags, needs=("nvidia-cublas",), cuda="13.0")
    publish(index, "nvidia-cublas", "13.1")
    lock, found = fetch(index, "torch", target=Target("3.11"), pinned="torch==2.13.0\n")
    assert found == {"torch": "2.13.0", "nvidia-cublas": "13.1"}
    assert lock.cuda == "13.0"


def test_a_pinned_build_is_taken_to_the_letter(index):
    both_torches(index)
    digest = fetch(index, "torch", target=Target("3.11"), pinned="torch==2.13.0\n")[0].wheels[0].digest
    pins = {"torch": ("2.13.0+cpu", digest.removeprefix("sha256:"))}
    assert fetch(index, "torch", target=Target("3.11"), pins=pins)[1] == {"torch": "2.13.0+cpu"}


@pytest.mark.parametrize(
    ("marker", "python", "machine", "wanted"),
    [
        ('platform_machine == "aarch64"', "3.11", "aarch64", True),
        ('platform_machine == "aarch64"', "3.11", "x86_64", False),
        ('python_version > "3.11"', "3.13", "x86_64", True),
        ('python_version > "3.11"', "3.11", "x86_64", False),
        ('sys_platform == "win32"', "3.11", "x86_64", False),
        ('extra == "fast"', "3.11", "x86_64", False),
    ],
)
def test_markers_are_those_of_the_image(index, marker, python, machine, wanted):
    publish(index, "app", "1", needs=(f"needed; {marker}",))
    publish(index, "needed", "1")
    assert ("needed" in fetch(index, "app", target=Target(python, machine))[1]) is wanted


def test_extras_are_followed_also_when_they_are_asked_for_late(index):
    publish(index, "app", "1", needs=("lib", "mid"))
    publish(index, "mid", "1", needs=("lib[fast]",))
    publish(index, "lib", "1", needs=('speed; extra == "fast"',))
    publish(index, "speed", "1")
    assert set(fetch(index, "app", target=Target("3.11"))[1]) == {"app", "mid", "lib", "speed"}


def test_dependency_cycles_end_and_each_wheel_has_its_first_root(index):
    publish(index, "app", "1", needs=("shared",))
    publish(index, "shared", "1", needs=("app",))
    publish(index, "peft", "1", needs=("shared", "only"))
    publish(index, "only", "1")
    lock, _ = fetch(index, "app", "peft", target=Target("3.11"))
    assert {w.name: w.root for w in lock.wheels} == {
        "app": "app", "shared": "app", "peft": "peft", "only": "peft",
    }  # fmt: skip


def test_bounds_of_all_who_ask_count(index):
    publish(index, "app", "1", needs=("lib<3", "other"))
    publish(index, "other", "1", needs=("lib>=2",))
    for version in ("1", "2", "3"):
        publish(index, "lib", version)
    assert fetch(index, "app", target=Target("3.11"))[1]["lib"] == "2"


@pytest.mark.quick
def test_conflicting_versions_are_reported(index):
    publish(index, "app", "1", needs=("lib<2",))
    publish(index, "lib", "2")
    with pytest.raises(TunebuildError, match="app needs lib <2, and 2 was chosen"):
        fetch(index, "app", target=Target("3.11"), pinned="lib==2\n")


def test_optional_vllm_dependencies_are_left_out_for_vllm_only(index):
    for name in ("vllm", "app"):
        publish(index, name, "1", needs=("torchaudio", "lib"))
    publish(index, "torchaudio", "1")
    publish(index, "lib", "1")
    assert set(fetch(index, "vllm", target=Target("3.11", device="cuda"))[1]) == {"vllm", "lib"}
    assert set(fetch(index, "app", target=Target("3.11"))[1]) == {"app", "lib", "torchaudio"}


@pytest.mark.parametrize(("engine", "device"), [("transformers", "cpu"), ("vllm", "cpu"), ("vllm", "cuda")])
def test_constraints_ship_and_pin_exactly(engine, device):
    lines = [x for x in constraints_file(engine, device).read_text().splitlines() if not x.startswith("#")]
    assert len(lines) > 50
    assert all(line.count("==") == 1 and "+" not in line for line in lines)
    assert any(line.startswith("torch==") for line in lines)
