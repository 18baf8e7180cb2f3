"""What the HTTP API costs for each token, beside the bare engine: CPU time of a process that serves.

    python benchmarks/api.py --streams 64,256 --rate 60 --seconds 4

The engine is a stand-in that computes nothing: it hands every running answer a token at a fixed rate, on the
event loop, as vLLM's does. One side is that engine with readers that drop what they read; the other is the
same engine behind the server, with clients in a process of their own. Sides take turns, each number is the
median of the rounds. CPU time is the process's own, so other load changes it less than it changes a clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from serving import ask, save_tokenizer

from tunebuild.serve.engines.generation import Generation
from tunebuild.serve.engines.request import Finish, Request, Token


class SteadyEngine:
    """Hands each running answer a token at every tick.

    Args:
        rate: ticks a second.
        most: ids are below this.
    """

    capacity, dtype, healthy = 4096, "float32", True

    def __init__(self, rate: float, most: int) -> None:
        chosen = random.Random(0)
        self._ids = [chosen.randrange(2, most) for _ in range(4096)]
        self._rate = rate
        self._made: dict[Generation, int] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> int:
        return len(self._made)

    def start(self) -> None:
        pass

    def stop(self) -> None:
        if self._task is not None:
            self._task.get_loop().call_soon_threadsafe(self._task.cancel)

    async def score(self, rows: Sequence[list[int]]) -> list[list[float]]:
        raise NotImplementedError

    def submit(self, generation: Generation) -> None:
        self._made[generation] = 0
        generation.on_cancel(lambda g: self._made.pop(g, None))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._tick())

    async def _tick(self) -> None:
        due = time.perf_counter()
        while True:
            due = max(due + 1 / self._rate, time.perf_counter() - 1)
            for generation, made in list(self._made.items()):
                generation.put(Token(self._ids[(made * 31 + id(generation)) % len(self._ids)]))
                if made + 1 >= generation.request.max_tokens:
                    generation.put(Finish.LENGTH)
                    del self._made[generation]
                else:
                    self._made[generation] = made + 1
            await asyncio.sleep(max(0.0, due - time.perf_counter()))


def run_bare(streams: int, tokens: int, rate: float, vocabulary: int) -> dict[str, float]:
    async def read(engine: SteadyEngine) -> int:
        generation = Generation(Request([5, 6], tokens, frozenset()))
        engine.submit(generation)
        return sum([1 async for _ in generation])

    async def main() -> int:
        engine = SteadyEngine(rate, vocabulary)
        return sum(await asyncio.gather(*(read(engine) for _ in range(streams))))

    begun, started = time.process_time(), time.perf_counter()
    try:
        import uvloop

        made = uvloop.run(main())
    except ImportError:
        made = asyncio.run(main())
    return {
        "tokens": made,
        "cpu": time.process_time() - begun,
        "seconds": time.perf_counter() - started,
    }


def serve(bundle: Path, port: int, rate: float, vocabulary: int) -> None:
    """Serve until a signal; the CPU time so far is on a page of its own."""
    from tunebuild.serve import logs
    from tunebuild.serve.api.app import make_app
    from tunebuild.serve.bundle import Bundle
    from tunebuild.serve.connections import make_server
    from tunebuild.serve.service import Service

    logs.configure("text")
    settings = Bundle.load(bundle)
    service = Service(bundle, settings, SteadyEngine(rate, vocabulary))
    app = make_app(service)

    @app.get("/cpu")
    async def cpu() -> float:
        return time.process_time()

    profile = os.environ.get("API_PROFILE")
    if profile:
        import cProfile

        profiler = cProfile.Profile()
        profiler.enable()
    make_server(app, service, "127.0.0.1", port).run()
    if profile:
        profiler.disable()
        profiler.dump_stats(profile)


async def load(port: int, streams: int, tokens: int) -> int:
    body = {"model": "bench", "prompt": "hello", "max_tokens": tokens, "stream": True,
            "stream_options": {"include_usage": True}}  # fmt: skip
    return sum(made for _, made in await asyncio.gather(*(ask(port, body) for _ in range(streams))))


def make_bundle(directory: Path, streams: int) -> int:
    from tunebuild.data.prompt_source import build_renderer
    from tunebuild.prompt import save_prompt
    from tunebuild.serve.bundle import Bundle
    from tunebuild.spec.model import PromptSpec

    model = directory / "model"
    save_tokenizer(model)
    renderer = build_renderer(PromptSpec(), model, model)
    save_prompt(directory / "prompt", renderer, model)
    settings = {
        "name": "bench", "prompt_digest": renderer.digest, "spec_digest": "sha256:" + "0" * 64,
        "engine": "transformers", "device": "cpu", "dtype": "float32", "port": 8080,
        "defaults": {"max_tokens": 16, "temperature": 0.0, "top_p": 1.0},
        "limits": {"context": 100_000, "concurrency": streams, "queue": streams, "drain_seconds": 5},
    }  # fmt: skip
    Bundle.model_validate(settings).save(directory)
    return renderer.tokenizer.vocabulary_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=lambda text: [int(n) for n in text.split(",")], default=[64, 256])
    parser.add_argument("--rate", type=float, default=60.0, help="tokens a second of each stream")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--vocabulary", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--bundle", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.bundle, int(options.serve[0]), float(options.serve[1]), options.vocabulary)
        return
    from tunebuild.client.readiness import wait_until_ready

    tokens = round(options.rate * options.seconds)
    with tempfile.TemporaryDirectory() as scratch:
        vocabulary = make_bundle(Path(scratch), max(options.streams))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        argv = [sys.executable, __file__, "--serve", str(port), str(options.rate), "--bundle", scratch]
        process = subprocess.Popen([*argv, "--vocabulary", str(vocabulary)], stderr=subprocess.DEVNULL)
        try:
            wait_until_ready(f"http://127.0.0.1:{port}", lambda: process.poll() is None, 60)
            for streams in options.streams:
                print(json.dumps(compare(port, streams, tokens, options, vocabulary)), flush=True)
        finally:
            process.terminate()
            process.wait(20)


def compare(
    port: int, streams: int, tokens: int, options: argparse.Namespace, vocabulary: int
) -> dict[str, object]:
    def cpu() -> float:
        import urllib.request

        with urllib.request.urlopen(f"http://127.0.0.1:{port}/cpu") as response:
            return float(response.read())

    bare, served, rates = [], [], []
    for _ in range(options.rounds):
        found = run_bare(streams, tokens, options.rate, vocabulary)
        bare.append(1e6 * found["cpu"] / found["tokens"])
        begun, started = cpu(), time.perf_counter()
        made = asyncio.run(load(port, streams, tokens))
        rates.append(made / (time.perf_counter() - started))
        served.append(1e6 * (cpu() - begun) / made)
    return {
        "streams": streams,
        "bare us/token": round(statistics.median(bare), 2),
        "served us/token": round(statistics.median(served), 2),
        "api us/token": round(statistics.median(served) - statistics.median(bare), 2),
        "tokens/s": round(statistics.median(rates)),
        "wanted tokens/s": round(streams * options.rate),
        "load": [round(x, 2) for x in os.getloadavg()],
    }


if __name__ == "__main__":
    main()
