"""A bundle with a tiny model, and a real server process on it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import tunebuild
from support.models import save_base
from tunebuild.client.readiness import wait_until_ready
from tunebuild.data.prompt_source import build_renderer
from tunebuild.prompt import Renderer, save_prompt
from tunebuild.serve.bundle import Bundle
from tunebuild.spec.model import PromptSpec


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    process: subprocess.Popen[bytes]
    bundle: Path
    renderer: Renderer


def make_bundle(
    directory: Path,
    architecture: str = "llama",
    *,
    head_dim: int | None = None,
    prompt: PromptSpec | None = None,
    request_variables: Sequence[str] = (),
    cors: Sequence[str] = (),
    **limits: float,
) -> Renderer:
    """Write a bundle whose model has random weights; returns its renderer.

    vLLM takes heads of 32. A prompt's template is looked for in ``directory``.
    """
    # Random weights with tied embeddings only ever repeat the last token.
    untied = {"tie_word_embeddings": False} if architecture == "llama" else {}
    head = {"head_dim": head_dim} if head_dim else {}
    room = {"max_position_embeddings": int(limits["context"])} if "context" in limits else {}
    base = save_base(architecture, directory / "model", **untied, **head, **room)
    renderer = build_renderer(prompt or PromptSpec(system="Be brief."), base, directory)
    save_prompt(directory / "prompt", renderer, base)
    settings = {
        "name": "tiny",
        "prompt_digest": renderer.digest,
        "spec_digest": "sha256:" + "0" * 64,
        "engine": "transformers",
        "device": "cpu",
        "dtype": "float32",
        "port": 8080,
        "defaults": {"max_tokens": 16, "temperature": 0.0, "top_p": 1.0},
        "limits": {"context": 200, "concurrency": 16, "queue": 8, "drain_seconds": 10, **limits},
        "request_variables": list(request_variables),
        "cors": list(cors),
    }
    Bundle.model_validate(settings).save(directory)
    return renderer


@contextmanager
def serving(
    bundle: Path,
    renderer: Renderer,
    *,
    ready: bool = True,
    python: Path = Path(sys.executable),
    log: Path | None = None,
    variables: Mapping[str, str] | None = None,
    scheme: str = "http",
) -> Iterator[Server]:
    """Start ``python -m tunebuild.serve`` on a free port; SIGTERM at the end if it still runs.

    Args:
        bundle, renderer: what it serves.
        ready: wait until it is.
        python: of the environment that the engine is in.
        log: where its log goes; a pipe if left out, which takes little.
        variables: more of its environment.
        scheme: of its URL.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [str(python), "-m", "tunebuild.serve", str(bundle), "--port", str(port)]
    path = str(Path(tunebuild.__file__).parents[1])
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **(variables or {})}
    with log.open("wb") if log else nullcontext(subprocess.PIPE) as errors:
        process = subprocess.Popen(argv, env=env, stderr=errors)
    url = f"{scheme}://127.0.0.1:{port}"
    try:
        if ready:
            wait_until_ready(
                url,
                lambda: process.poll() is None,
                300,
                lambda: log.read_text()[-3000:] if log else "see its log",
            )
        yield Server(url, process, bundle, renderer)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
