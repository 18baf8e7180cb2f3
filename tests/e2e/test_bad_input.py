"""Each mistake gives one clear message and exit 1, and leaves nothing that a later build would believe."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.containers import need_runtime
from support.models import save_base
from support.quickstart import tunebuild, tunebuild_here
from tunebuild.cli._building import build_spec
from tunebuild.client.readiness import wait_until_ready
from tunebuild.containers.local_server import local_server
from tunebuild.errors import TunebuildError

SPEC = """\
apiVersion: tunebuild/v1
name: tiny
data:
  train:
    - {path: rows.jsonl, format: qa}
model:
  base: ./base
tuning:
  epochs: 1
  max_length: 128
serving:
  defaults: {max_tokens: 40}
  limits: {context: 200}
"""

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 14\n"


@pytest.fixture
def spec(tmp_path):
    save_base("llama", tmp_path / "base")
    row = json.dumps({"question": "Why?", "answer": "So."})
    (tmp_path / "rows.jsonl").write_text(f"{row}\n" * 4)
    (tmp_path / "spec.yaml").write_text(SPEC)
    return tmp_path / "spec.yaml"


def build(spec, store=None, **options):
    return tunebuild("build", spec, "--store", store or spec.parent / "store", **options)


def nothing_to_believe(store):
    return not [*store.glob("records/*/*.json"), *store.glob("trees/*")]


@pytest.mark.parametrize(
    ("break_it", "expected"),
    [
        (
            lambda d: (d / "rows.jsonl").unlink(),
            "spec.yaml:5:14 data.train[0].path: there is no file 'rows.jsonl'",
        ),
        (
            lambda d: (d / "rows.jsonl").write_text("{]\n"),
            "\n  rows.jsonl:1: is not JSON: Expecting property name enclosed in double quotes at column 2\n"
            "fix the rows\n",
        ),
        (lambda d: (d / "rows.jsonl").write_bytes(b"\xff\n"), "rows.jsonl:1: is not UTF-8"),
        (lambda d: (d / "rows.jsonl").write_text(""), "there are no training rows"),
        (lambda d: (d / "base" / "chat_template.jinja").unlink(), "no chat template of its own"),
        (lambda d: (d / "base" / "model.safetensors").unlink(), "has no .safetensors file"),
        (
            lambda d: (d / "base" / "model.safetensors").write_bytes(b"not weights"),
            "is not a safetensors file",
        ),
        (lambda d: os.truncate(d / "base" / "model.safetensors", 9000), "its header says"),
        (lambda d: (d / "base" / "tokenizer.json").write_text("{}"), "tokenizer.json cannot be read"),
        (lambda d: (d / "base" / "config.json").write_text("{"), "base/config.json is not JSON: "),
        (lambda d: (d / "base" / "config.json").write_text("[]"), "base/config.json is not a JSON object"),
        (
            lambda d: (d / "base" / "config.json").write_text("{}"),
            "Should have a `model_type` key in its config.json",
        ),
        (
            lambda d: (d / "base" / "tokenizer_config.json").write_bytes(b"\xff"),
            "base/tokenizer_config.json is not JSON: ",
        ),
        (
            lambda d: (d / "base" / "generation_config.json").write_text(""),
            "base/generation_config.json is not JSON: ",
        ),
        (
            lambda d: (d / "base" / "model.safetensors").write_text(POINTER),
            "model.safetensors is a Git LFS pointer, not the file itself; run 'git lfs pull' in ",
        ),
        (
            lambda d: (d / "base" / "tokenizer.json").write_text(POINTER),
            "tokenizer.json is a Git LFS pointer",
        ),
        (lambda d: (d / "spec.yaml").write_text(SPEC + "extra: 1\n"), "spec.yaml:14:1 extra: unknown key"),
        (lambda d: (d / "spec.yaml").write_text(SPEC.replace("rows.jsonl", "/etc/hosts")), "is outside"),
        (
            lambda d: (d / "spec.yaml").write_text(SPEC.replace("128", "8")),
            "tokens, at most 8",
        ),
        (
            lambda d: (d / "spec.yaml").write_text(SPEC + "prompt: {template: nope}\n"),
            "there is no template 'nope'",
        ),
    ],
)
def test_bad_input(spec, break_it, expected, capsys):
    break_it(spec.parent)
    done = tunebuild_here(capsys, "build", spec, "--store", spec.parent / "store")
    assert done.code == 1
    assert done.out == ""
    assert expected in done.err
    assert "spec.yaml" in done.err or "rows.jsonl" in done.err
    assert not list((spec.parent / "store").glob("records/train/*.json"))


def test_no_spec_at_all(tmp_path):
    done = tunebuild("validate", tmp_path / "none.yaml")
    assert done.code == 1
    assert "there is no file" in done.err


def test_a_runtime_that_is_not_running(quickstart):
    env = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}
    done = quickstart.run("build", "--builder", "docker", env=env)
    assert done.code == 1
    assert "docker" in done.err
    done = quickstart.run("run", "--runtime", "docker", "--port", "0", "--ask", "x", env=env)
    assert done.code == 1
    assert "start dockerd" in done.err


@pytest.mark.runtime
def test_a_runtime_that_cannot_start_a_container_gives_way_to_a_process(quickstart, tmp_path):
    need_runtime("podman")
    fake, settings = tmp_path / "runtime", tmp_path / "containers.conf"
    fake.write_text("#!/bin/sh\necho no control groups here >&2\nexit 1\n")
    fake.chmod(0o755)
    settings.write_text(f'[engine]\nruntime = "broken"\n[engine.runtimes]\nbroken = ["{fake}"]\n')
    env = {"DOCKER_HOST": "unix:///nonexistent/docker.sock", "CONTAINERS_CONF": str(settings)}
    done = quickstart.run("run", "--port", "0", "--ask", "x", env=env)
    assert done.code == 0, done.err
    assert re.search("serving as a local process: podman start: .*no control groups here", done.err)
    chosen = quickstart.run("run", "--runtime", "podman", "--port", "0", "--ask", "x", env=env)
    assert chosen.code == 1
    assert "no control groups here" in chosen.err


@pytest.mark.parametrize("name", ["dist/none.tar", "./none"])
def test_an_image_file_that_is_not_there(name):
    done = tunebuild("explain", name)
    assert done.code == 1
    assert f"there is no image at {name.removeprefix('./')}" in done.err


@contextmanager
def running(quickstart, runtime):
    """``tunebuild run``, once it has said that it is ready, and what it said until then."""
    argv = [sys.executable, "-c", "from tunebuild.cli import main; main()", "run", quickstart.spec]
    argv += ["--store", quickstart.store, "--runtime", runtime, "--port", "0"]
    # A shell has its background jobs ignore interrupts, and so would all that they start.
    hearing = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, **hearing) as process:
        said = ""
        while "curl" not in said:
            said += process.stderr.readline()
            assert process.poll() is None, said
        yield process, said


@pytest.mark.parametrize("runtime", ["docker", "podman", "none"])
def test_a_server_that_dies_ends_the_command_with_its_status(quickstart, runtime):
    if runtime != "none":
        need_runtime(runtime)
    with running(quickstart, runtime) as (process, said):
        if runtime == "none":
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            (server,) = (pid for pid in children if b"tunebuild.serve" in cmdline(pid))
            os.kill(int(server), signal.SIGKILL)
        else:
            container = re.search(rf"{runtime} container (\w+)", said)[1]
            subprocess.run([runtime, "kill", "--signal", "KILL", container], check=True)
        rest = process.stderr.read()
        assert process.wait(60) == 128 + signal.SIGKILL
    assert "the server ended by itself, with status 137; its log, above, says why" in rest


def test_a_server_that_cannot_start_has_its_last_words_shown(quickstart):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        built = build_spec(quickstart.spec, quickstart.store, ())
        with (
            local_server(built.parts, built.settings.root, "127.0.0.1", port, quiet=True) as server,
            pytest.raises(TunebuildError) as error,
        ):
            wait_until_ready(f"http://127.0.0.1:{port}", server.alive, last_words=server.last_words)
    said = str(error.value)
    assert "the server ended before it was ready" in said
    assert "the end of its log" in said
    assert "address already in use" in said


def test_a_server_that_is_not_ready_in_time_has_its_last_words_shown(quickstart):
    arguments = ("--runtime", "none", "--ready-within", "0")
    for quiet in (("run", "--ask", "x", "--port", "0"), ("verify",)):
        done = quickstart.run(*quiet, *arguments)
        assert done.code == 1
        assert "was not ready within 0 s: it did not answer; --ready-within gives it longer" in done.err
        assert "it printed nothing" in done.err


@pytest.mark.parametrize("runtime", ["auto", "none"])
def test_nobody_else_answers_for_the_endpoint(quickstart, runtime):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = quickstart.run("run", "--runtime", runtime, "--port", port, "--ask", "x")
    assert done.code == 1
    assert f"cannot listen on 127.0.0.1:{port}: address already in use" in done.err
    assert done.out == ""


def cmdline(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_server_that_is_interrupted_says_that_it_stopped(quickstart):
    with running(quickstart, "none") as (process, _):
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait() == 130
    assert "stopped" in rest
    assert "next build" not in rest


def test_a_full_disk(spec, tmp_path):
    store = tmp_path / "small"
    store.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", store], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.decode().strip()}")
    try:
        done = build(spec, store)
        assert done.code == 1
        assert "No space left" in done.err or "full" in done.err
        assert not list(store.glob("records/train/*.json"))
    finally:
        subprocess.run(["umount", store], check=True)


def test_a_misspelt_verb():
    done = tunebuild("biuld", "x")
    assert done.code == 1  # 2 is what plan says where there is work
    assert "did you mean 'build'" in done.err
