"""Whatever the engine: one that serves another model than the build's never becomes ready, and says why."""

from __future__ import annotations

import json
import shutil
import time
import urllib.error
import urllib.request
from contextlib import ExitStack

from support.endpoint import serving
from support.tuned import make_adapter, perturb, seal

from .conftest import copy_for


def without_effect(bundle):
    perturb(bundle / "adapter" / "adapter_model.safetensors", 0)


def stale(bundle):
    shutil.rmtree(bundle / "adapter")
    make_adapter(bundle / "model", bundle / "adapter", 2)


def wrong_weights(bundle):
    perturb(bundle / "model" / "model.safetensors", 0.05)


#: What is done to a bundle, whether its files' digests are renewed, and the reason that must be given.
FAULTS = {
    "adapter-without-effect": (without_effect, True, "answers as the base does"),
    "stale-adapter": (stale, False, "the adapter is sha256:"),
    "stale-adapter-under-its-name": (stale, True, "held-out tokens"),
    "wrong-weights": (wrong_weights, True, "held-out tokens"),
}


def reason(url):
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["reason"]
    except OSError:
        return 0, "loading"


def test_no_fault_becomes_ready(engine, tuned, tmp_path):
    name, python = engine
    bundle, renderer, _ = tuned
    with ExitStack() as stack:
        servers = {}
        for fault, (damage, sealed, _) in FAULTS.items():
            copy = copy_for(name, bundle, tmp_path / fault)
            damage(copy)
            if sealed:
                seal(copy)
            started = serving(copy, renderer, ready=False, python=python, log=tmp_path / f"{fault}.log")
            servers[fault] = stack.enter_context(started)
        deadline = time.monotonic() + 600
        found = {}
        while len(found) < len(servers):
            assert time.monotonic() < deadline, found
            for fault, server in servers.items():
                assert server.process.poll() is None, (tmp_path / f"{fault}.log").read_text()[-2000:]
                status, said = reason(server.url)
                if said != "loading":
                    found[fault] = (status, said)
            time.sleep(0.1)
        for fault, (_, _, wanted) in FAULTS.items():
            status, said = found[fault]
            assert status == 503
            assert wanted in said, (fault, said)
            body = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "x"}]}).encode()
            asked = urllib.request.Request(
                f"{servers[fault].url}/v1/chat/completions", body, {"Content-Type": "application/json"}
            )
            try:
                urllib.request.urlopen(asked, timeout=30)
            except urllib.error.HTTPError as error:
                assert (error.code, json.load(error)["error"]["code"]) == (503, "not_ready")
            else:
                raise AssertionError(f"{fault}: answered all the same")
