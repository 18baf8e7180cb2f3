"""What a container of the image does: starts as nobody on a read-only root, says when it is ready, and stops.

The base is this machine's own Python and the server a stub, so the test needs no network and takes seconds.
"""

import re
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tunebuild.containers.runtime import Container, ContainerRuntime, RunOptions, wait_ready
from tunebuild.errors import TunebuildError
from tunebuild.image.oci.layer import Entry, FilesLayer, Symlink
from tunebuild.image.oci.manifest import Image
from tunebuild.image.plan import ImageInputs, assemble, plan_image

pytestmark = pytest.mark.runtime

_STUB = b"""
import os, sys, time
print("importing", flush=True)
time.sleep(float(os.environ.get("STUB_IMPORT", "0")))
if "STUB_FAIL" in os.environ:
    raise SystemExit("the stub was asked to fail")
from http.server import BaseHTTPRequestHandler, HTTPServer

def writable(path):
    try:
        with open(path + "/x", "w"):
            return True
    except OSError:
        return False

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if "STUB_UNREADY" in os.environ else 200)
        self.end_headers()

print("uid", os.getuid(), "args", sys.argv[1:], "tmp", writable("/tmp"),
      "shm", writable(os.environ["TMPDIR"]), "root", writable("/opt/tunebuild"), flush=True)
HTTPServer((os.environ["TUNEBUILD_HOST"], int(os.environ["TUNEBUILD_PORT"])), Handler).serve_forever()
"""


def _libraries(*binaries: Path) -> set[Path]:
    found: set[Path] = set()
    for binary in binaries:
        text = subprocess.run(["ldd", binary], capture_output=True, text=True).stdout
        found |= {Path(match) for match in re.findall(r"(/\S+)(?= \(0x)", text)}
    return found


def _host_python() -> FilesLayer:
    """The interpreter that runs this test, its standard library and what they are linked to."""
    executable = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    library = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix}))
    skipped = {"site-packages", "dist-packages", "test", "idlelib", "ensurepip", "tkinter", "__pycache__"}
    files = [
        path
        for path in library.rglob("*")
        if path.is_file() and not skipped & set(path.relative_to(library).parts)
    ]
    binaries = [executable.resolve(), *library.joinpath("lib-dynload").glob("*.so")]
    files += [executable.resolve(), *_libraries(*binaries)]
    entries = {str(path)[1:]: Entry.of_file(str(path)[1:], path) for path in files}
    python = Entry("usr/bin/python3", Symlink(str(executable.resolve())))
    if str(executable.resolve()) == "/usr/bin/python3":
        python = entries["usr/bin/python3"]
    fixed = (
        Entry("etc/passwd", b"nonroot:x:65532:65532::/home/nonroot:/sbin/nologin\n"),
        Entry("tmp", None, 0o1777),
        Entry("home/nonroot", None, 0o755),
    )
    return FilesLayer("python", "this machine's Python", (*entries.values(), python, *fixed))


@pytest.fixture(scope="module")
def runnable(tmp_path_factory: pytest.TempPathFactory, make_inputs: Callable[[Path], ImageInputs]) -> Image:
    inputs = make_inputs(tmp_path_factory.mktemp("runnable"))
    plan = plan_image(replace(inputs, layers=(), labels=(("org.opencontainers.image.title", "runnable"),)))
    serve = "opt/tunebuild/app/tunebuild/serve"
    stub = FilesLayer(
        "stub", "stub", (Entry(f"{serve}/__init__.py", b""), Entry(f"{serve}/__main__.py", _STUB))
    )
    return assemble(replace(plan, layers=(_host_python(), *plan.layers, stub)))


@pytest.fixture(scope="module")
def serving(runtime: ContainerRuntime, runnable: Image) -> Iterator[ContainerRuntime]:
    runtime.load(runnable)
    yield runtime
    runtime.remove(runnable.reference)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(container: Container, text: str) -> None:
    for _ in range(200):
        if any(text in line for line in container.logs()):
            return
        time.sleep(0.05)
    raise AssertionError(f"no {text!r} in {list(container.logs())}")


def test_it_runs_as_nobody_on_a_read_only_root_and_stops(serving: ContainerRuntime, runnable: Image) -> None:
    options = RunOptions(port=_free_port())
    container = serving.run(runnable.reference, options)
    try:
        assert wait_ready(container, options, timeout=30) < 30
        line = next(line for line in container.logs() if line.startswith("uid"))
        assert line == "uid 65532 args ['/opt/tunebuild/bundle'] tmp True shm True root False"
        with socket.socket() as outside, pytest.raises(OSError, match="refused"):
            outside.connect(("127.0.0.2", options.port))
    finally:
        start = time.monotonic()
        status = container.stop(grace=20)
    assert (status, time.monotonic() - start < 10) == (143, True)


def test_sigterm_while_it_imports_ends_it_at_once(serving: ContainerRuntime, runnable: Image) -> None:
    options = RunOptions(port=_free_port(), env=(("STUB_IMPORT", "60"),))
    container = serving.run(runnable.reference, options)
    _wait_for(container, "importing")
    start = time.monotonic()
    assert container.stop(grace=20) == 143
    assert time.monotonic() - start < 10


def test_a_server_that_ends_is_told_with_its_last_words(serving: ContainerRuntime, runnable: Image) -> None:
    options = RunOptions(port=_free_port(), env=(("STUB_FAIL", "1"),))
    container = serving.run(runnable.reference, options)
    try:
        with pytest.raises(TunebuildError, match="asked to fail"):
            wait_ready(container, options, timeout=30)
    finally:
        assert container.stop() == 1


@pytest.mark.parametrize(("variables", "verdict"), [((), "healthy"), ((("STUB_UNREADY", "1"),), "starting")])
def test_the_health_check_asks_the_server(
    serving: ContainerRuntime, runnable: Image, variables: tuple[tuple[str, str], ...], verdict: str
) -> None:
    options = RunOptions(port=_free_port(), env=variables)
    container = serving.run(runnable.reference, options)
    try:
        _wait_for(container, "uid")
        command = ["/usr/bin/python3", "-S", "-I", "/opt/tunebuild/app/probe.py"]
        probe = [serving.name, "exec", container.id, *command]
        done = subprocess.run(probe, capture_output=True, text=True)
        assert (done.returncode, "not ready" in done.stderr) == (
            (0, False) if verdict == "healthy" else (1, True)
        )
        if serving.name == "docker" and verdict == "healthy":
            deadline = time.monotonic() + 30
            while container.health() == "starting" and time.monotonic() < deadline:
                time.sleep(0.2)
            assert container.health() == "healthy"
    finally:
        container.stop()
