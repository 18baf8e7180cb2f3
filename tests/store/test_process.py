"""A process that was started for a build ends with it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import os, subprocess, sys, time
if len(sys.argv) > 1:
    from tunebuild.store.process import die_with
    die_with(int(sys.argv[1]))
    print("ready", flush=True)
    time.sleep(600)
parent = os.getpid() + {wrong}
with subprocess.Popen([sys.executable, __file__, str(parent)]) as child:
    print(child.pid, flush=True)
"""


def start(directory, wrong):
    script = directory / "script.py"
    script.write_text(SCRIPT.format(wrong=wrong))
    return subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_ends_however_its_parent_ends(tmp_path, how):
    with start(tmp_path, 0) as parent:
        child = parent.stdout.readline().strip()
        assert parent.stdout.readline() == "ready\n"
        assert is_running(child)
        parent.send_signal(how)
        parent.wait()
        deadline = time.monotonic() + 30
        while is_running(child):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_worker_ends_at_once_if_its_parent_is_gone(tmp_path):
    with start(tmp_path, 1) as parent:
        assert parent.stdout.readline().strip().isdigit()
        assert parent.stdout.read() == ""
