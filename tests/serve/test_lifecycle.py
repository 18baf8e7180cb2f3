"""Starting, refusing, draining, canceling, stopping."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.endpoint import make_bundle, serving
from tunebuild.data.prompt_source import build_renderer
from tunebuild.prompt import save_prompt
from tunebuild.spec.model import PromptSpec

BODY = {"model": "tiny", "messages": [{"role": "user", "content": "Why?"}], "temperature": 0}


@pytest.fixture(scope="module")
def template_bundle(tmp_path_factory):
    directory = tmp_path_factory.mktemp("template")
    return directory, make_bundle(directory)


@pytest.fixture
def bundle(template_bundle, tmp_path):
    directory, renderer = template_bundle
    shutil.copytree(directory, tmp_path / "bundle")
    return tmp_path / "bundle", renderer


def limit(directory, **limits):
    path = directory / "bundle.json"
    settings = json.loads(path.read_text())
    settings["limits"].update(limits)
    path.write_text(json.dumps(settings))


def call(url, body=None, timeout=60):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return response.status, response.read().decode(), response.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), error.headers


def metric(url, name):
    text = call(f"{url}/metrics")[1]
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name} "))


def wait_for(condition, seconds=15.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def long_request(**more):
    # Never ends by itself before its 150 tokens: the end-of-turn token is the only stop.
    return {**BODY, "max_tokens": 150, **more}


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (
            lambda p: (p / "prompt.jinja").write_text((p / "prompt.jinja").read_text() + " "),
            "not the ones it was built",
        ),
        (lambda p: _edit_golden(p / "golden.json"), "golden vector 'one-turn': token 2 should be"),
        (lambda p: _edit_system(p / "prompt.json"), "not the ones it was built with"),
        (lambda p: _save_another(p), "not the one that this model was trained on"),
    ],
    ids=["template", "golden", "system", "another"],
)
def test_not_ready_says_why(bundle, damage, reason):
    directory, renderer = bundle
    damage(directory / "prompt")
    with serving(directory, renderer, ready=False) as server:

        def state():
            try:
                return call(f"{server.url}/readyz")[1]
            except urllib.error.URLError:
                return ""

        wait_for(lambda: reason in state(), 30)
        assert call(f"{server.url}/readyz")[0] == 503
        assert call(f"{server.url}/livez")[0] == 200
        status, text, _ = call(f"{server.url}/v1/chat/completions", BODY)
        assert status == 503
        assert json.loads(text)["error"]["code"] == "not_ready"


def test_a_model_that_cannot_be_loaded_ends_the_server_with_its_reason(bundle):
    directory, renderer = bundle
    (directory / "model" / "model.safetensors").write_bytes(b"x")
    with serving(directory, renderer, ready=False) as server:
        log = server.process.stderr.read().decode()
        assert server.process.wait(10) == 1
        assert "not ready: the model cannot be loaded" in log


def _edit_golden(path):
    vectors = json.loads(path.read_text())
    vectors[0]["ids"][2] += 1
    path.write_text(json.dumps(vectors))


def _edit_system(path):
    path.write_text(path.read_text().replace("Be brief.", "Be long."))


def _save_another(prompt):
    """A prompt that is whole, and of another build."""
    shutil.rmtree(prompt)
    base = prompt.parent / "model"
    save_prompt(prompt, build_renderer(PromptSpec(system="Be long."), base, base), base)


def test_a_full_queue_refuses_at_once(bundle):
    directory, renderer = bundle
    limit(directory, concurrency=1, queue=1)
    with serving(directory, renderer) as server, ThreadPoolExecutor(8) as pool:
        url = f"{server.url}/v1/chat/completions"
        answers = list(pool.map(lambda _: call(url, long_request()), range(8)))
        statuses = sorted(a[0] for a in answers)
        assert statuses[0] == 200
        assert statuses[-1] == 429
        refused = next(a for a in answers if a[0] == 429)
        assert int(refused[2]["Retry-After"]) >= 1
        assert json.loads(refused[1])["error"]["type"] == "rate_limit_error"
        wait_for(lambda: metric(server.url, "tunebuild_requests_running") == 0)
        assert call(url, BODY)[0] == 200


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_frees_its_place(bundle, stream):
    directory, renderer = bundle
    with serving(directory, renderer) as server:
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
        connection.request(
            "POST",
            "/v1/chat/completions",
            json.dumps(long_request(stream=stream)),
            {"Content-Type": "application/json"},
        )
        if stream:
            connection.getresponse().read(10)
        else:
            wait_for(lambda: metric(server.url, "tunebuild_requests_running") == 1)
        connection.sock.close() if connection.sock else connection.close()
        connection.close()
        wait_for(lambda: metric(server.url, "tunebuild_requests_running") == 0)
        assert call(f"{server.url}/v1/chat/completions", BODY)[0] == 200


def test_sigterm_finishes_running_requests(bundle):
    directory, renderer = bundle
    with serving(directory, renderer) as server, ThreadPoolExecutor(1) as pool:
        running = pool.submit(call, f"{server.url}/v1/chat/completions", long_request())
        wait_for(lambda: metric(server.url, "tunebuild_requests_running") == 1)
        server.process.send_signal(signal.SIGTERM)
        status, text, _ = running.result()
        assert status == 200
        assert json.loads(text)["usage"]["completion_tokens"] > 0
        assert server.process.wait(15) == 0
        with pytest.raises(urllib.error.URLError):
            call(f"{server.url}/livez")


def test_draining_answers_503(bundle):
    directory, renderer = bundle
    with serving(directory, renderer) as server, ThreadPoolExecutor(1) as pool:
        running = pool.submit(call, f"{server.url}/v1/chat/completions", long_request())
        wait_for(lambda: metric(server.url, "tunebuild_requests_running") == 1)
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: call(f"{server.url}/readyz")[0] == 503)
        status, text, headers = call(f"{server.url}/v1/chat/completions", BODY)
        assert (status, json.loads(text)["error"]["code"]) == (503, "not_ready")
        assert headers["Retry-After"]
        assert running.result()[0] == 200


def test_a_stream_that_outlasts_the_drain_ends_with_the_reason(bundle):
    directory, renderer = bundle
    limit(directory, drain_seconds=0.3)
    with serving(directory, renderer) as server:
        request = urllib.request.Request(
            f"{server.url}/v1/chat/completions",
            json.dumps(long_request(stream=True)).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            response.read(10)
            server.process.send_signal(signal.SIGTERM)
            rest = response.read().decode()
        assert '"code": "shutting_down"' in rest or '"finish_reason": "length"' in rest
        assert rest.endswith("data: [DONE]\n\n")
        assert server.process.wait(15) == 0


def test_clients_that_hang_up_while_queued_leave_no_place_taken(bundle):
    directory, renderer = bundle
    limit(directory, concurrency=1, queue=30)
    with serving(directory, renderer) as server:
        host = server.url.removeprefix("http://")
        for stream in (True, False):
            connections = [http.client.HTTPConnection(host) for _ in range(25)]
            for connection in connections:
                body = json.dumps(long_request(stream=stream))
                connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
            wait_for(lambda: metric(server.url, "tunebuild_requests_waiting") >= 20)
            for connection in connections:
                connection.sock.close() if connection.sock else connection.close()
                connection.close()
            wait_for(lambda: metric(server.url, "tunebuild_requests_waiting") == 0)
            wait_for(lambda: metric(server.url, "tunebuild_requests_running") == 0)
        assert call(f"{server.url}/v1/chat/completions", BODY)[0] == 200
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        assert time.monotonic() - started < 8


def test_sigterm_while_starting_ends_at_once(bundle):
    directory, renderer = bundle
    with serving(directory, renderer, ready=False) as server:
        time.sleep(0.3)
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(10)
        assert time.monotonic() - started < 5


def test_no_bundle_is_one_line(tmp_path):
    argv = [sys.executable, "-m", "tunebuild.serve", str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_the_server_needs_no_training_library():
    script = (
        "import sys, tunebuild.serve.__main__, tunebuild.serve.api.app, tunebuild.serve.engines.transformers;"
        "print(sorted({'peft', 'bitsandbytes', 'datasets', 'trl', 'pyarrow', 'docker'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
